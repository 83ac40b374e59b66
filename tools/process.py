"""A child process with its output in a file, to be stopped, killed, paused and started again."""

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Below the range that the kernel draws outgoing ports from, so that a stopped server finds its port again.
PORTS = range(12_000, 32_000)


@dataclass(frozen=True, slots=True)
class User:
    """Whom a program runs as, as ``subprocess`` wants it; all None: as we do."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs, and how it is reached there.

    Args:
        address: where we reach it.
        peer_address: where the other programs of the test reach it.
        enter: a program that becomes the one it is given, inside (``nsenter``); none: beside us.
        data_dir: where its data goes; None: into its folder.
    """

    address: str = "127.0.0.1"
    peer_address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    data_dir: Path | None = None


LOOPBACK = Place()


class Process:
    """One program of a test, the demo or a benchmark.

    Args:
        name: what reports call it.
        command: the program and its arguments.
        log: file that gets its output, of all its lives.
        env: added to our own environment.
        user: run as this user; None is us.
        place: where it runs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        place: Place = LOOPBACK,
    ) -> None:
        self.name = name
        self.log = log
        self.place = place
        self._command = [str(part) for part in command]
        self._env = dict(env or {})
        self._user = user or User()
        if place.enter:
            # Only we may enter; there it becomes whom it should run as.
            self._command = [*place.enter, *_becoming(self._user), *self._command]
            self._user = User()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before its first start; negative for a signal."""
        return None if self._child is None else self._child.poll()

    @property
    def cpu_s(self) -> float:
        """User and system time it has used so far, in seconds, without its children's. It must be alive."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._env,
                cwd=self.log.parent,
                start_new_session=True,
                user=self._user.uid,
                group=self._user.gid,
                extra_groups=self._user.groups,
            )

    def wrap(self, *prefix: str) -> None:
        """From the next start on, run it by the program ``prefix``, which must become it."""
        self._command = [*prefix, *self._command]

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None, f"{self.name} was never started"
        self._child.send_signal(number)

    def wait(self, *, deadline_s: float = 60.0) -> int:
        """Its exit code, once it has ended by itself or by a signal sent before."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.wait(deadline_s)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, deadline_s: float = 60.0) -> int:
        """Ask it to end and give its exit code. Killing it when it does not is an error too."""
        if not self.alive:
            return self.exit_code or 0
        self.send(signal.SIGCONT)
        self.send(number)
        try:
            return self.wait(deadline_s=deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to it and all its children, and wait until they are gone."""
        if not self.alive:
            return
        self._send_all(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """SIGSTOP to it and all its children."""
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_all(signal.SIGCONT)

    def _send_all(self, number: signal.Signals) -> None:
        children = list(_children(self.pid))
        for pid in (self.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def tail(self, lines: int = 60) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def server_user() -> User:
    """Whom PostgreSQL runs as: us; but it refuses to run as root, who becomes postgres or nobody."""
    if os.geteuid() != 0:
        return User()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return User(found.pw_uid, found.pw_gid, ())
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _becoming(user: User) -> list[str]:
    if user.uid is None:
        return []
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--"]


_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on, and that this process never gave before.

    Parallel test workers draw from ports of their own: between the draw and the bind, and while its server is
    stopped, nobody sees that a port is taken.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    while True:
        port = random.SystemRandom().choice(ports)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for listed in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(listed)
            yield from _children(int(listed))
