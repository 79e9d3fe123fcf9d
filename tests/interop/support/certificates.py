"""Certificates made for one run, by an authority that nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

# nginx reads these names beside its configuration.
TLS = "ssl_certificate server.pem; ssl_certificate_key server.key;"
ASKS_FOR_CERTIFICATES = TLS + "ssl_verify_client on; ssl_client_certificate authority.pem;"


@dataclass(frozen=True)
class Certificates:
    """An authority's file, and a client's certificate and key that it signed."""

    authority: Path
    client: Path
    client_key: Path


def write_certificates(folder: Path, *names: str) -> Certificates:
    """Puts a server's and a client's certificate into a folder; the server is `localhost` where no name is given."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    client = authority.issue_cert("client@penstock.invalid", common_name="penstock-client")
    written = Certificates(folder / "authority.pem", folder / "client.pem", folder / "client.key")
    authority.cert_pem.write_to_path(str(written.authority))
    for name, leaf in (("server", server), ("client", client)):
        leaf.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        for index, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(folder / f"{name}.pem"), append=index > 0)
    return written
