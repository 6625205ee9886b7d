"""Documents in every dialect, good and bad. The golden ones hold the revision too: if it changed with a
release of this agent, every host of a fleet would deploy again what it runs already."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from almagent.core.document import NAMES, DocumentError, parse, read, without_credentials
from almagent.core.model import Spec

GOLDEN = sorted((Path(__file__).parent / "documents").glob("*.json"))
CANARY = "canary5f1e"
KEY = (
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIGV4YW1wbGVleGFtcGxlZXhhbXBsZWV4YW1wbGVleGFt\n"
    "-----END PRIVATE KEY-----\n"
)
OTHER_KEY = KEY.replace("RleGFtcGxl", "RleGFtcGxm", 1).replace("GV4YW", "GV5YW", 1)


def spec_of(**document: Any) -> Spec:
    spec = parse(json.dumps({"image": "nginx", **document}).encode())
    assert spec is not None
    return spec


def refusal(raw: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(raw)
    return str(caught.value)


# --- good ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_document(path):
    golden = json.loads(path.read_text())
    spec = parse(json.dumps(golden["document"]).encode())
    assert spec is not None
    assert shown(spec) == golden["expected"]


def shown(spec: Spec) -> dict[str, Any]:
    source, registry = spec.source, spec.registry
    return {
        "revision": spec.revision,
        "image": spec.image,
        "environment": {name: value.reveal() for name, value in spec.environment.items()},
        "source": source
        and {
            "url": source.url,
            "reference": source.reference,
            "has_key": source.private_key is not None,
        },
        "code_dir": spec.code_dir,
        "ports": spec.ports and list(spec.ports),
        "updated": spec.updated,
        "registry": registry and [registry.username, registry.password.reveal()],
        "ignored": list(spec.ignored),
    }


@pytest.mark.parametrize("raw", [b"", b" \n", b"{}", b"[]", b"null", b" null\n", b"\xef\xbb\xbf{}"])
def test_nothing_is_defined(raw):
    assert parse(raw) is None


@pytest.mark.parametrize(
    ("names", "value", "other"),
    [(names, "v", "w") for names in NAMES.values() if names[0] in ("gitReference", "codeDir")]
    + [(NAMES["image"], "nginx", "httpd"), (NAMES["updated"], 5, 6), (NAMES["ports"], [1], [2])],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_first_name_of_a_field_that_has_a_value_wins(names, value, other):
    slash = "/" if names[0] == "codeDir" else ""
    first, second = (slash + v if slash else v for v in (value, other))
    basis = {} if names[0] == "image" else {"image": "nginx"}
    basis |= {"gitRepo": "https://h/r"}
    alone = parse(json.dumps({**basis, names[0]: first}).encode())
    both = parse(json.dumps({**basis, names[1]: second, names[0]: first}).encode())
    absent = parse(json.dumps({**basis, names[0]: None, names[1]: first}).encode())
    assert alone == both == absent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (None, ""),
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        ("é\n$'", "é\n$'"),
    ],
)
def test_value_of_a_variable_becomes_text(value, text):
    assert spec_of(environment_variables={"A": value}).environment["A"].reveal() == text


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (None, None),
        ([], ()),
        (80, (80,)),
        ("80", (80,)),
        ([443, 80, 443], (80, 443)),
        (["80/tcp", 1, 65535], (1, 80, 65535)),
    ],
)
def test_ports(ports, expected):
    assert spec_of(ports=ports).ports == expected


def test_unknown_fields_are_ignored():
    assert spec_of(version="2017-02-01", monitoring={"x": [1]}) == spec_of()


@pytest.mark.parametrize("field", ["environment_variables", "users", "addons", "storage"])
@pytest.mark.parametrize("empty", [[], {}, None, ""], ids=json.dumps)
def test_an_empty_value_is_none_however_it_is_encoded(field, empty):
    assert spec_of(**{field: empty}) == spec_of()


def test_a_key_without_use_is_not_judged():
    broken = "-----BEGIN PRIVATE ..."
    assert spec_of(gitRepo="https://h/r", gitPrivateKey=broken) == spec_of(gitRepo="https://h/r")


# --- revision ------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "image": "nginx",
    "environment_variables": {"A": "1", "B": "2"},
    "gitRepo": "git@h:r.git",
    "gitReference": "main",
    "gitPrivateKey": KEY,
    "codeDir": "/srv",
    "ports": [80, 443],
    "updated": 5,
    "registryUsername": "u",
    "registryPassword": "p",
}


@pytest.mark.parametrize(
    "change",
    [
        {"image": "nginx:2"},
        {"environment_variables": {"A": "1", "B": "3"}},
        {"environment_variables": {"A": "1"}},
        {"environment_variables": {"A": "1", "C": "2"}},
        {"gitRepo": "git@h:s.git"},
        {"gitRepo": None},
        {"gitReference": "v2"},
        {"codeDir": "/srv/www"},
        {"codeDir": None},
        {"ports": [80]},
        {"ports": []},
        {"ports": None},
        {"updated": 6},
        {"updated": None},
    ],
    ids=str,
)
def test_changed_content_is_another_revision(change):
    assert spec_of(**(FULL | change)).revision != spec_of(**FULL).revision


@pytest.mark.parametrize(
    "change",
    [
        {"gitPrivateKey": OTHER_KEY},
        {"gitPrivateKey": KEY.replace("\n", "\r\n").rstrip()},
        {"gitPrivateKey": None},
        {"registryUsername": "v", "registryPassword": "q"},
        {"registryUsername": None, "registryPassword": None},
        {"environment_variables": {"B": "2", "A": 1}},
        {"ports": ["443", 80]},
        {"codeDir": "/srv/"},
        {"updated": "5"},
        {"users": [{"name": "u", "publicKey": "ssh-rsa A"}]},
        {"addons": [{"name": "datadog"}]},
        {"storage": {"type": "efs", "id": "fs-1"}},
        {"image": "http://nginx"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_means_or_spelling_are_the_same_revision(change):
    assert spec_of(**(FULL | change)).revision == spec_of(**FULL).revision


def test_other_token_in_the_repository_address_is_the_same_revision():
    one, two = (spec_of(gitRepo=f"https://u:{token}@h/r") for token in ("t1", "t2"))
    assert one.revision == two.revision
    assert one != two


def test_same_content_is_the_same_revision_in_every_dialect():
    names = {"environment_variables": 2, "gitRepo": 1, "gitReference": 1}
    other = {
        NAMES[name][names.get(name, 1) if len(NAMES[name]) > 1 else 0]: v
        for name, v in FULL.items()
    }
    other["container_image"] = other.pop("container_image")
    spec = parse(json.dumps(other).encode())
    assert spec == spec_of(**FULL)


def test_parts_of_the_content_can_not_pass_for_one_another():
    one = spec_of(environment_variables={"A": "1", "B": "2"})
    two = spec_of(environment_variables={"A": '1"], ["B", "2'})
    assert one.revision != two.revision


def test_what_is_known_keeps_its_revision():
    """Also where another release of the agent has hashed it otherwise: an upgrade of the agent deploys nothing."""
    running = replace(spec_of(**FULL), revision="of old", registry=None)
    raw = json.dumps({"image": "nginx", **FULL}).encode()
    other = json.dumps({"image": "nginx", **FULL, "updated": 99}).encode()
    for known in ([running], [spec_of(), running]):
        spec = parse(raw, known)
        assert spec == replace(spec_of(**FULL), revision="of old")
        changed = parse(other, known)
        assert changed == parse(other)


def test_revision_does_not_tell_the_environment():
    assert len(spec_of(**FULL).revision) == 32
    raw = json.dumps({"image": "nginx", **FULL}).encode()
    assert read(raw) == replace(spec_of(**FULL), revision="")
    assert int(spec_of(**FULL).revision, 16)


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("repository", [f"https://{CANARY}:{CANARY}@h/r", "git@h:r"])
def test_secrets_do_not_show(repository):
    spec = spec_of(
        environment_variables={"A": CANARY},
        gitRepo=repository,
        gitPrivateKey=KEY,
        registryUsername="u",
        registryPassword=CANARY,
    )
    for text in (repr(spec), str(spec), f"{spec}", f"{spec.environment}"):
        assert CANARY not in text
        assert KEY.splitlines()[1] not in text


def test_credentials_can_be_left_out():
    spec = without_credentials(spec_of(**FULL))
    assert spec.source is not None
    assert (spec.source.private_key, spec.registry) == (None, None)
    assert spec.revision == spec_of(**FULL).revision


# --- bad ones ------------------------------------------------------------------------------------

BAD_VALUES: list[tuple[str, Any]] = [
    *(("image", value) for value in (5, [CANARY], {"a": CANARY}, True)),
    *(
        ("image", value)
        for value in (
            f"{CANARY} x",
            f"a/{CANARY.upper()}",
            f"{CANARY}:a:b",
            "sha256:" + "0" * 64,
            "0" * 64,
            f"-{CANARY}",
            f"../{CANARY}",
            f"{CANARY}\0",
            f"{CANARY}@sha256:1",
            f"u:{CANARY}@registry/a",
            f"oci+x://{CANARY}",
        )
    ),
    *(("environment_variables", value) for value in (CANARY, 5, [CANARY], True)),
    *(
        ("environment_variables", {name: CANARY})
        for name in ("", "A B", "A=B", "1A", "A\0", "A\n", "é", "\ud800", "=", f"A={CANARY}")
    ),
    ("environment_variables", {f"{'A' * 50} {CANARY}": "x"}),
    *(
        ("environment_variables", {"A": value})
        for value in ([CANARY], {"a": CANARY}, f"{CANARY}\0", f"{CANARY}\ud800")
    ),
    ("environment_variables", {"A": CANARY + "x" * 131_072}),
    *(
        ("gitRepo", value)
        for value in (
            5,
            [CANARY],
            f"ext::sh -c {CANARY}",
            f"EXT::sh -c {CANARY}",
            f"fd::{CANARY}",
            f"file:///{CANARY}",
            f"/{CANARY}",
            f"../{CANARY}",
            CANARY,
            f"--upload-pack={CANARY}",
            f"-u{CANARY}",
            f"http://h/{CANARY}",
            f"ftp://h/{CANARY}",
            f"git://h/{CANARY}",
            f"https://h/{CANARY}\n",
            f"https://h/{CANARY}\0",
            f"https://h/r?access_token={CANARY}",
            f"https://u:{CANARY}@",
            f"https://169.254.169.254/{CANARY}",
            f"ssh://-oProxyCommand={CANARY}/r",
            f"ssh://u:{CANARY}@h/r",
            f"-oProxyCommand={CANARY}@h:r",
        )
    ),
    *(
        ("gitReference", value)
        for value in (
            5,
            f"--upload-pack={CANARY}",
            f"-{CANARY}",
            f"{CANARY} x",
            f"{CANARY}..x",
            f"{CANARY}@{{1}}",
            f"{CANARY}~1",
            f"{CANARY}^",
            f"{CANARY}:x",
            f"{CANARY}\n",
            f"{CANARY}\0",
            f"{CANARY}.lock",
            f"/{CANARY}",
            CANARY * 100,
        )
    ),
    *(
        ("gitPrivateKey", value)
        for value in (
            5,
            CANARY,
            "-----BEGIN PRIVATE ...\n-----END PRIVATE KEY-----\n",
            f"-----BEGIN PRIVATE KEY-----\n{CANARY}!\n-----END PRIVATE KEY-----",
            f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n{CANARY}\n-----END RSA PRIVATE KEY-----",
            f"ssh-rsa {CANARY}",
        )
    ),
    *(
        ("codeDir", value)
        for value in (
            5,
            CANARY,
            "/",
            "//",
            f"../{CANARY}",
            f"/{CANARY}/../etc",
            f"/./{CANARY}",
            f"/{CANARY}:ro",
            f"/{CANARY}\0",
            f"/{CANARY}\nx",
            f"/{CANARY}\ud800",
            f"/proc/{CANARY}",
            "/sys",
            "/dev",
            f"/etc/{CANARY}",
            "/tmp/init",
            "/var/log",
        )
    ),
    *(
        ("ports", value)
        for value in (
            0,
            65536,
            -1,
            80.0,
            True,
            [True],
            CANARY,
            [CANARY],
            [[80]],
            {"80": CANARY},
            ["53/udp"],
            ["80/sctp"],
            ["0000080"],
            ["８０"],
            ["80 "],
            ["80-90"],
            [None],
            ["9" * 5000],
        )
    ),
    *(
        ("updated", value)
        for value in (CANARY, True, 1.5, [CANARY], {"a": CANARY}, "1" * 19, "0x10")
    ),
    *(("registryUsername", value) for value in (5, [CANARY], f"{CANARY}\n")),
    *(("registryPassword", value) for value in (5, [CANARY], f"{CANARY}\0")),
    *(("users", value) for value in (CANARY, [CANARY], [{"name": CANARY}], {"u": CANARY})),
    *(("addons", value) for value in (CANARY, [CANARY], [{"apiKey": CANARY}], {"name": CANARY})),
    *(("storage", value) for value in (CANARY, [CANARY], {"type": CANARY}, {"id": CANARY})),
]


@pytest.mark.parametrize(("field", "value"), BAD_VALUES, ids=lambda value: ascii(value)[:40])
def test_bad_value_is_refused_by_field_and_reason_and_is_not_shown(field, value):
    basis = {"image": "nginx", "gitRepo": "git@h:r"}
    text = refusal(json.dumps({**basis, field: value}).encode())
    assert text.startswith(f"{field}: ")
    assert CANARY not in text
    assert CANARY not in text.lower()
    assert text.isprintable()
    assert len(text) < 300


@pytest.mark.parametrize("field", sorted(NAMES))
def test_error_has_the_canonical_name_in_every_dialect(field):
    basis = {} if field == "image" else {"image": "nginx"}
    for name in NAMES[field]:
        text = refusal(json.dumps({**basis, name: 0.5}).encode())
        assert text.startswith(f"{field}: ")


def test_all_bad_fields_are_named():
    text = refusal(b'{"image": 5, "ports": "x", "updated": "y"}')
    assert [part.partition(":")[0] for part in text.split("; ")] == ["image", "ports", "updated"]


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        b"{",
        b'{"image": "nginx"',
        b"<html>canary5f1e</html>",
        b"\xff\xfe",
        b'{"image": "\xff"}',
        b'{"updated": NaN}',
        b'{"updated": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        "{}".encode("utf-16"),
    ],
    ids=lambda raw: ascii(raw[:20]),
)
def test_what_is_not_json_is_refused(raw):
    assert refusal(raw) == "the document is not valid JSON"


@pytest.mark.parametrize("raw", [b"5", b"true", b'"canary5f1e"', b"[1]", b"[{}]"])
def test_what_is_not_an_object_is_refused(raw):
    assert refusal(raw) == "the document must be a JSON object"


@pytest.mark.parametrize(
    "raw", [b'{"foo": 1}', b'{"image": ""}', b'{"image": null}', b'{"ports": [80]}']
)
def test_document_without_an_image_is_refused(raw):
    assert refusal(raw).startswith("image: ")


def test_number_that_no_container_could_read_is_refused():
    text = refusal(b'{"image": "nginx", "environment_variables": {"A": 1e999}}')
    assert text.startswith("environment_variables: A: ")


# --- anything ------------------------------------------------------------------------------------

names = st.sampled_from([name for names in NAMES.values() for name in names]) | st.text(max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["nginx", "https://h/r", "/srv", "main", "80", KEY])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
quietly = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@quietly
@given(st.dictionaries(names, values, max_size=6) | values)
def test_any_json_is_a_spec_or_a_clear_refusal(document):
    outcome_of(json.dumps(document).encode())


@quietly
@given(st.sampled_from(sorted(NAMES)), values)
def test_any_value_of_a_field_is_taken_or_refused_in_one_line(field, value):
    outcome_of(json.dumps({"image": "nginx", field: value}).encode())


@quietly
@given(st.binary(max_size=200))
def test_any_bytes_are_nothing_or_a_clear_refusal(raw):
    outcome_of(raw)


def outcome_of(raw: bytes) -> None:
    try:
        spec = parse(raw)
    except DocumentError as exc:
        assert str(exc)
        assert str(exc).isprintable()
    else:
        assert spec is None or spec.revision
