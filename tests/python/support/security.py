"""Certificates and keys for tests, and `penstock serve` in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import trustme

import penstock
from penstock._key_command import hash_of, made_key

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

APP = """
import penstock

@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2
"""

X = np.ones((1, 2), np.float32)
KEY = made_key()
HASH = hash_of(KEY)


@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x * 2


class Files:
    """An authority, a server's certificate and a client's, in files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.client = folder / "client.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        own = self.authority.issue_cert("client@example.org", common_name="team-a", organization_name="Example")
        own.private_key_and_cert_chain_pem.write_to_path(str(self.client))
        self.renew()

    def renew(self) -> None:
        """Puts another certificate of the server in the place of the one before."""
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        self.cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self.key))

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": str(self.key)}


class Serving:
    """A `penstock serve` of `APP` with these flags."""

    def __init__(self, folder: Path, *flags: str) -> None:
        app = folder / "app.py"
        app.write_text(APP)
        command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0", *flags]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=dict(os.environ),
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self._reader.start()
        line = self.process.stdout.readline()
        found = re.search(r"(https?://\S+) and (grpcs?://\S+)", line)
        assert found, (line, self.errors)
        self.url, self.grpc_url = found[1], found[2]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
