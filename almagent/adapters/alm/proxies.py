"""The proxy of the environment, for the ALM API and nothing else.

Read from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, in either case. `~/.netrc` is never looked at, and what is
on this host or link (loopback, the metadata service) is never asked through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """A URL. Raises ValueError for a proxy that is none; its text does not show it: it may hold a password."""
    asked = urlsplit(url)
    host = (asked.hostname or "").lower()
    text = _value(environment, f"{asked.scheme}_proxy")
    if not text or _is_local(host) or _is_exempt(host, _value(environment, "no_proxy")):
        return None
    proxy = text if "://" in text else f"http://{text}"  # as curl does
    if not _is_http(proxy):
        name = f"{asked.scheme.upper()}_PROXY"
        raise ValueError(f"cannot use {name}: it is not an http or https URL")
    return proxy


def _is_http(text: str) -> bool:
    try:
        url: SplitResult = urlsplit(text)
        plain = bool(url.hostname) and url.port != 0 and "\\" not in url.netloc
    except ValueError:
        return False
    return plain and url.scheme in {"http", "https"}


def _value(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _is_local(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_link_local


def _is_exempt(host: str, no_proxy: str) -> bool:
    """Names stand for themselves and what is below them, addresses may be written as networks."""
    return any(_matches(host, entry.strip().lower()) for entry in no_proxy.split(","))


def _matches(host: str, entry: str) -> bool:
    address = _address(host)
    if not entry or entry == "*":
        return entry == "*"
    if address is None:
        name = entry.removeprefix("*").removeprefix(".")
        return host == name or host.endswith(f".{name}")
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
