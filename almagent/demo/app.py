"""The code of the demo: a web server in shell, in a few versions. Good ones, and two bad ones.

`nc` listens and starts `answer.sh` for each connection. The length of its queue of connections to be
accepted is the number of its `l` options.
"""

from __future__ import annotations

_START = """\
trap 'exit 0' TERM
echo "listening on port $PORT"
nc -llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll -p "$PORT" -e sh answer.sh &
wait $!
"""

_ANSWER = r"""
while [ -z "$last" ] && read -r method path version; do
    case $version in HTTP/1.0*) last=yes ;; esac
    while read -r header && [ ${#header} -gt 1 ]; do
        case $header in [Cc]onnection:*close*) last=yes ;; esac
    done
    case $path in /slow/*) sleep "${path#/slow/}" ;; esac
    read -r words <page.txt
    body="$words GREETING is: $GREETING"
    head='HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n'
    printf "${head}Content-Length: %d\r\n\r\n%s\n" $((${#body} + 1)) "$body"
done
"""

_DOES_NOT_START = """\
echo "opening the database"
echo "fatal: the database has another format"
exit 3
"""

_FALLS_OVER = """\
trap 'echo "fatal: that visitor was too much for me"; exit 70' USR1
trap 'exit 0' TERM
nc -llllllll -p "$PORT" -e sh -c 'read -r request && kill -USR1 1' &
while :; do wait; done
"""


def good(page: str) -> dict[str, str]:
    """The files of a release that shows this page, and the value of GREETING. `/slow/N` takes N seconds."""
    return {"start.sh": _START, "answer.sh": _ANSWER, "page.txt": f"{page}\n"}


def that_does_not_start() -> dict[str, str]:
    return {"start.sh": _DOES_NOT_START}


def that_falls_over() -> dict[str, str]:
    """It listens, and so looks ready; the first request ends it."""
    return {"start.sh": _FALLS_OVER}
