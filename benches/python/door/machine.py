"""Processes on a CPU of their own: started, asked for their CPU time and memory, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVER_CPU = "0"
LOAD_CPU = 1 % (os.cpu_count() or 1)
STARTS_WITHIN = 60.0
STOPS_WITHIN = 10.0
OPEN_FILES = 8192
INTERRUPTED = 130
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class NotServing(RuntimeError):
    """A server that did not start, or whose answers are wrong."""


def take_the_load_cpu() -> None:
    """Keeps this process, and so its load generator, off the server's CPU; lets it open a thousand connections."""
    os.sched_setaffinity(0, {LOAD_CPU})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    # Ended from outside, it ends its servers as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def carry_out(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the status of a command: that of Ctrl-C where it was ended so."""
    try:
        status = main()
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def busy_cpu_seconds() -> float:
    """What all CPUs of the machine did, and what its host took away from it (proc(5): all but idle and iowait)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(frozen=True)
class Launch:
    """How a server is started.

    `{port}` in the command and in the environment stands for its port, `{spare}` and `{spare2}` for others; `ready` is
    a path that answers with status 200 once it serves, where listening alone does not say so. `scheme` is what its path
    is asked by, `grpc` over gRPC; everything else is asked by HTTP.
    """

    name: str
    command: tuple[str, ...]
    path: str
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT
    cpus: str = SERVER_CPU
    ready: str | None = None
    scheme: str = "http"


class Served:
    """A server and every process that it started, pinned to the server's CPU."""

    def __init__(self, launch: Launch, logs: Path) -> None:
        self.name = launch.name
        self._ready = launch.ready
        self._known: set[tuple[int, str]] = set()
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.url = f"{launch.scheme}://127.0.0.1:{self.port}{launch.path}"
        self.log = logs / f"{launch.name.replace(' ', '-').replace('/', '-')}.log"
        logs.mkdir(parents=True, exist_ok=True)
        ports = {"port": self.port, "spare": free_port(), "spare2": free_port()}
        environment = {name: value.format(**ports) for name, value in launch.environment.items()}
        # The kernel ends it where this process is killed and cannot.
        tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        command = [*tied, "taskset", "-c", launch.cpus, *(part.format(**ports) for part in launch.command)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=launch.folder,
                env={**os.environ, **ONE_THREAD, **environment},
                start_new_session=True,
            )

    def wait_until_ready(self, limit: float = STARTS_WITHIN) -> None:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise NotServing(f"{self.name} ended with status {self.process.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                if self._ready is None:
                    return
                self.get(self._ready)
                return
            time.sleep(0.05)
        raise NotServing(f"{self.name} was not ready within {limit:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-4:])

    def cpu_seconds(self) -> float:
        """User and system time of all its processes."""
        return sum(int(fields[11]) + int(fields[12]) for _, fields in self._processes()) / TICK

    def rss_kib(self) -> float:
        """Resident memory of all its processes."""
        pages = 0
        for number, _ in self._processes():
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
        return pages * PAGE / 1024

    def peak_rss_kib(self) -> float:
        """The most resident memory that its processes had, or have had since `forget_peak`."""
        return sum(self._status_kib(number, "VmHWM") for number, _ in self._processes())

    def forget_peak(self) -> None:
        """Counts the peak of resident memory from here on (proc(5): `clear_refs`)."""
        for number, _ in self._processes():
            with contextlib.suppress(OSError):
                Path(f"/proc/{number}/clear_refs").write_text("5")

    @staticmethod
    def _status_kib(number: int, name: str) -> float:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{number}/status").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    return float(line.split()[1])
        return 0.0

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self) -> None:
        """Ends every process of its session: asked first, killed where that does not help."""
        for number, patience in ((signal.SIGTERM, STOPS_WITHIN), (signal.SIGKILL, STOPS_WITHIN)):
            self._tell(number)
            self.thaw()
            until = time.monotonic() + patience
            while time.monotonic() < until:
                self.process.poll()
                if not any(fields[0] != "Z" for _, fields in self._processes()):
                    break
                time.sleep(0.02)
            else:
                continue
            break
        self.process.wait(STOPS_WITHIN)

    def freeze(self) -> None:
        """Stops its processes where they are: idle servers, too, take CPU time from the one that is visited."""
        self._tell(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        for one in [one for one, _ in self._processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def _processes(self) -> Iterator[tuple[int, list[str]]]:
        """The processes of its session, their descendants in other sessions, and those of either that it ever had.

        By number and time of start: a process stays its own when its parent has ended.
        """
        every = dict(_statuses())
        members = {one for one, fields in every.items() if (one, fields[19]) in self._known}
        before = -1
        while before < len(members):
            before = len(members)
            members |= {one for one, fields in every.items() if members.intersection(map(int, (fields[1], fields[3])))}
            members |= {self.process.pid} & every.keys()
        self._known |= {(one, every[one][19]) for one in members}
        return iter([(one, every[one]) for one in sorted(members)])


def _statuses() -> Iterator[tuple[int, list[str]]]:
    """Every process and its status from the state on (proc_pid_stat(5))."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "stat").read_text().rsplit(")", 1)[1].split()


@contextlib.contextmanager
def serving(*launches: Launch, logs: Path) -> Iterator[list[Served]]:
    """Servers that are ready, until the block is left."""
    servers: list[Served] = []
    try:
        for launch in launches:  # one by one: what has started must end, whatever the next one does
            servers.append(Served(launch, logs))  # noqa: PERF401
        for server in servers:
            server.wait_until_ready()
        yield servers
    finally:
        for server in servers:
            server.stop()
