"""`penstock key`: makes a key for a server's door, and the line by which the server knows it."""

from __future__ import annotations

import hashlib
import secrets
import sys
from typing import TYPE_CHECKING, Any

from penstock._security_settings import check_key_name

if TYPE_CHECKING:
    import argparse

_BYTES = 32
_PREFIX = "penstock_"
"""What finds a key that was left in a repository."""


def add_parser(commands: Any) -> None:
    """Adds `key` to the commands."""
    key = commands.add_parser("key", help="make an API key, and the line by which a server knows it")
    key.add_argument(
        "name", nargs="?", default="client", help="whose it is, in access logs and as tenant (default: %(default)s)"
    )
    key.set_defaults(carry_out=_carry_out)


def _carry_out(options: argparse.Namespace) -> int:
    check_key_name("name", options.name)
    key = made_key()
    print("the key, which is stored nowhere and not shown again; clients send it:", file=sys.stderr)  # noqa: T201
    print(key, flush=True)  # noqa: T201  a command's answer
    print("the line for the file of --api-keys:", file=sys.stderr)  # noqa: T201
    print(f'{options.name} = "{hash_of(key)}"')  # noqa: T201  as above
    return 0


def made_key() -> str:
    """A key: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(key: str) -> str:
    """What a server stores of a key."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
