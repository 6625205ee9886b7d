"""Identifiers in the shapes the reference shows, and random secrets."""

from __future__ import annotations

import secrets
import string

_LETTERS = string.ascii_letters + string.digits
_ADJECTIVES = ("brave", "calm", "clean", "early", "green", "quiet", "small", "steady", "warm")
_NOUNS = ("anchor", "bridge", "harbor", "lantern", "leaflet", "meadow", "orchard", "river", "sail")
_VERBS = ("arrive", "believe", "carry", "demonstrate", "flourish", "gather", "listen", "wander")


def user_id() -> str:
    return secrets.token_hex(7)[:13]


def client_id(owner: str) -> str:
    return f"lg-{owner}-{secret(9)}-tm"


def stack_id(owner: str) -> str:
    return f"mo-{owner}-{secret(9)}-tk"


def role_id(owner: str) -> str:
    return f"morole-{owner}-{secret(9)}-tk"


def user_role_id(owner: str) -> str:
    return f"mour-{owner}-{secret(9)}-tk"


def version_id() -> str:
    return secret(32)


def nickname() -> str:
    return " ".join(secrets.choice(words) for words in (_ADJECTIVES, _NOUNS, _VERBS))


def secret(length: int = 30) -> str:
    """Random letters and digits, 5.9 bits each."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
