import pytest

from almagent.core.imageref import ImageRefError, parse_image, registry_host, split

HEX64 = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX64}"


@pytest.mark.parametrize(
    ("text", "ref", "host", "parts"),
    [
        ("alpine", "alpine", "docker.io", ("alpine", "latest")),
        ("alpine:3.20", "alpine:3.20", "docker.io", ("alpine", "3.20")),
        ("mobingi/ubuntu", "mobingi/ubuntu", "docker.io", ("mobingi/ubuntu", "latest")),
        ("  alpine \n", "alpine", "docker.io", ("alpine", "latest")),
        ("http://alpine:1", "alpine:1", "docker.io", ("alpine", "1")),
        ("HTTPS://r.example/a", "r.example/a", "r.example", ("r.example/a", "latest")),
        (
            "index.docker.io/a/b",
            "index.docker.io/a/b",
            "docker.io",
            ("index.docker.io/a/b", "latest"),
        ),
        ("localhost/a:1", "localhost/a:1", "localhost", ("localhost/a", "1")),
        ("localhost:5000/a", "localhost:5000/a", "localhost:5000", ("localhost:5000/a", "latest")),
        ("[::1]:5000/a:t", "[::1]:5000/a:t", "[::1]:5000", ("[::1]:5000/a", "t")),
        ("Reg:5000/a_b/c--d", "Reg:5000/a_b/c--d", "Reg:5000", ("Reg:5000/a_b/c--d", "latest")),
        ("a__b.c-d", "a__b.c-d", "docker.io", ("a__b.c-d", "latest")),
        (f"r.io/a@{DIGEST}", f"r.io/a@{DIGEST}", "r.io", ("r.io/a", DIGEST)),
        (f"r.io/a:t@{DIGEST}", f"r.io/a:t@{DIGEST}", "r.io", ("r.io/a", DIGEST)),
        ("a:" + "t" * 128, "a:" + "t" * 128, "docker.io", ("a", "t" * 128)),
    ],
)
def test_a_reference_is_taken_apart(text, ref, host, parts):
    assert parse_image(text) == ref
    assert registry_host(ref) == host
    assert split(ref) == parts
    assert parse_image(ref) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "http://",
        "ftp://r.io/a",
        "a b",
        "a\tb",
        "a\u00a0b",
        "a\0b",
        "a\nb",
        "a\x1b[0m",
        "bücher",
        "Alpine",
        "r.io/Alpine",
        "mobingi/Ubuntu:14",
        "name:a:b",
        "name:",
        "name:-a",
        "name:" + "t" * 129,
        "name:tag/more",
        "-name",
        "--all",
        "name-",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "../a",
        "a..b",
        "a___b",
        "a@",
        "a@sha256:123",
        "a@md5:" + "0" * 32,
        f"a@{DIGEST.upper()}",
        f"a@{DIGEST}@{DIGEST}",
        DIGEST,
        HEX64,
        "user:password@r.io/a",
        "https://user:password@r.io/a",
        "r.io:port/a",
        "-r.io/a",
        "r.io:123456/a",
        "a/" * 128 + "a",
        "${IMAGE}",
        "$(id)",
        "a;b",
    ],
)
def test_what_docker_would_misread_is_refused(text):
    with pytest.raises(ImageRefError):
        parse_image(text)


def test_the_reason_holds_no_login():
    with pytest.raises(ImageRefError) as caught:
        parse_image("https://bob:canary@r.io/a")
    assert "canary" not in str(caught.value)
