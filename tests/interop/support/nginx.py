"""nginx with a configuration of the test's own, and its account of what it was asked."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.support.processes import Process, free_port, listens
from tests.python.support.waiting import soon, until

if TYPE_CHECKING:
    from collections.abc import Sequence

# The log is how the tests know: what the server saw, on which of its connections, as which request of it.
FRAME = """\
daemon off;
worker_processes {workers};
{user}
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 1024; }}
http {{
    log_format exchange "$connection\t$connection_requests\t$request_method\t$request_uri\t$status\t$server_protocol";
    access_log access.log exchange;
    client_body_temp_path temporary-body;
    proxy_temp_path temporary-proxy;
    fastcgi_temp_path temporary-fastcgi;
    uwsgi_temp_path temporary-uwsgi;
    scgi_temp_path temporary-scgi;
    default_type application/octet-stream;
    {around}
    server {{
        listen {listen};
        server_name localhost;
        root files;
        add_header X-Connection $connection always;
        {server}
    }}
}}
"""


@dataclass(frozen=True)
class Exchange:
    """One request as nginx saw it."""

    connection: int
    count: int
    """Which request of its connection it was, from 1."""
    method: str
    target: str
    status: int
    protocol: str


class Nginx:
    """One server block over one address; `around` stands beside it."""

    def __init__(
        self, folder: Path, server: str, *, around: str = "", listen: str = "", socket: bool = False, workers: int = 1
    ) -> None:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            pytest.skip("nginx is not installed; tools/test-interop installs it")
        self._binary: str = binary
        self._workers = workers
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.address: int | str = str(folder / "nginx.sock") if socket else free_port()
        name = f"unix:{self.address}" if socket else f"127.0.0.1:{self.address}"
        # Started by root it would otherwise serve as a user who may not read the test's folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            FRAME.format(workers=workers, user=user, around=around, listen=f"{name} {listen}", server=server)
        )
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.address}" if isinstance(self.address, str) else f"http://127.0.0.1:{self.address}"

    @property
    def secure_url(self) -> str:
        return f"https://localhost:{self.address}"

    def start(self) -> None:
        command = [self._binary, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        if isinstance(self.address, str):
            Path(self.address).unlink(missing_ok=True)
        self._process = Process(command, self.folder / "printed.log", folder=self.folder)
        self._process.wait_until(lambda: listens(self.address))

    def workers(self) -> set[int]:
        assert self._process is not None
        number = self._process.number
        return set(map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split()))

    def reload(self) -> None:
        """As `nginx -s reload`: new workers take over, the old ones end when they have answered; waits for the new."""
        assert self._process is not None
        before = self.workers()
        self._process.send(signal.SIGHUP)
        until(lambda: len(self.workers() - before) == self._workers)

    def stop(self, *, graceful: bool = False) -> None:
        """As `nginx -s quit` where it is graceful, as `nginx -s stop` where not."""
        if self._process is not None:
            self._process.stop(signal.SIGQUIT if graceful else signal.SIGTERM)
            self._process = None

    def asked(self) -> int:
        """How many requests it has answered so far."""
        log = self.folder / "access.log"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def exchanges(self, prefix: str = "/") -> list[Exchange]:
        """What was asked so far of paths that begin so."""
        log = self.folder / "access.log"
        found = []
        # A line that is being written has no end yet.
        for line in log.read_text().split("\n")[:-1] if log.exists() else []:
            connection, count, method, target, status, protocol = line.split("\t")
            if target.startswith(prefix):
                found.append(Exchange(int(connection), int(count), method, target, int(status), protocol))
        return found

    async def all_of(self, count: int, prefix: str = "/") -> list[Exchange]:
        """What was asked, as soon as that many are in the log: nginx writes there after it has answered."""
        await soon(lambda: len(self.exchanges(prefix)) >= count)
        return self.exchanges(prefix)


def a_connection(exchanges: Sequence[Exchange]) -> Counter[int]:
    """How many requests came over each connection."""
    return Counter(exchange.connection for exchange in exchanges)
