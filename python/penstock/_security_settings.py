"""Who may come in through a server's doors: certificates, keys, and pages of other origins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from penstock._settings_model import Resolved, setting
from penstock._settings_values import CHECKS
from penstock.errors import ConfigError

_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_KEYS = 1_000


class KeyHashes(dict[str, tuple[str, ...]]):
    """The hashes of keys by their names. It shows the names only."""

    def __repr__(self) -> str:
        return ", ".join(self) or "none"

    __str__ = __repr__


def hashes_of(source: str, value: object) -> str | KeyHashes:
    """The path of a file of keys, or the hashes of keys by name. No error shows what might be a key.

    Raises:
        ConfigError: for anything else, naming `source`.
    """
    if not isinstance(value, Mapping):
        if isinstance(value, str | os.PathLike):
            path: str = CHECKS["file"](source, value)
            return path
        raise ConfigError(f"{source} must be the path of a file of keys, or their hashes by name")
    hashes = KeyHashes()
    for name, given in value.items():
        check_key_name(source, name)
        several = (given,) if isinstance(given, str) else given
        if not isinstance(several, list | tuple) or not several or not all(_is_hash(one) for one in several):
            raise ConfigError(f"{source}: {name} needs 'sha256:' and 64 digits of hex; 'penstock key' makes them")
        hashes[name] = tuple(several)
    if (count := sum(map(len, hashes.values()))) > _MOST_KEYS:
        raise ConfigError(f"{source}: there are {count} keys, and {_MOST_KEYS} can be")
    return hashes


def check_key_name(source: str, name: object) -> None:
    """Refuses what is no name of a key.

    Raises:
        ConfigError: likewise, naming `source`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{source}: a key's name is 1 to 64 letters, digits, '-', '_' and '.', not {name!r:.100}")


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class SecuritySettings(Resolved, section="security"):
    """Who may come in through a server's doors. Without any of it, everybody may who reaches the port.

    Attributes:
        tls_cert: the server's certificate and those between it and its authority, a PEM file. With it, both doors speak
            TLS and nothing else.
        tls_key: the certificate's key, a PEM file without a password; not needed where `tls_cert` holds it, too.
        tls_client_ca: the authorities of which every client's certificate has to be, a PEM file.
        tls_reload_seconds: seconds between looks at the files of certificates and keys, which are read again where they
            have changed; 0 for none but those of `Server.reload_certificates` and SIGHUP.
        api_keys: keys, of which every request has to show one: a file with a line `name = "sha256:HEX"` for each, or
            their hashes by name. `penstock key` makes a key and its line.
        metrics_open: answer `/metrics` without a key.
        cors_origins: origins, the pages of which a browser lets ask, such as `https://app.example`; `*` for all.
        cors_max_age: seconds for which a browser may keep that.
    """

    tls_cert: str | None = setting(None, "file", "the server's certificate, PEM: both doors speak TLS")
    tls_key: str | None = setting(None, "file", "the certificate's key, PEM", none="in the file of tls_cert")
    tls_client_ca: str | None = setting(
        None, "file", "authorities of clients' certificates, PEM: every client needs one"
    )
    tls_reload_seconds: float = setting(5.0, "pause", "time between looks at the files; 0 looks on SIGHUP only")
    api_keys: str | Mapping[str, tuple[str, ...]] | None = setting(
        None, "file", 'a file of hashed keys, name = "sha256:HEX"; every request has to show one', check=hashes_of
    )
    metrics_open: bool = setting(False, "switch", "answer /metrics without a key")  # noqa: FBT003
    cors_origins: tuple[str, ...] = setting((), "texts", "origins of pages that may ask, or *")
    cors_max_age: float = setting(600.0, "seconds", "time for which a browser may keep that")

    def __post_init__(self) -> None:
        """Refuses settings that mean nothing alone.

        Raises:
            ConfigError: naming them.
        """
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                raise ConfigError(f"{name} is given without tls_cert: the doors would speak no TLS")

    @property
    def encrypted(self) -> bool:
        """Whether the doors speak TLS."""
        return self.tls_cert is not None

    def url_scheme(self, scheme: str) -> str:
        """`http` or `grpc`, as it is written where the doors speak TLS."""
        return f"{scheme}s" if self.encrypted else scheme
