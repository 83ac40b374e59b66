"""A primary, its walproxy nodes and a pageserver, as real processes on loopback ports."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from tools.process import LOOPBACK, Place, Process, free_port
from tools.server import Server, Setting
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

NOT_YET = (psycopg.Error, OSError)
GROUP = "walproxy"
PORT = 7000


class Program(Process):
    """A walproxy node or a pageserver: a process with a port that answers ``SHOW <package>.status``."""

    def __init__(
        self, package: str, name: str, folder: Path, *, place: Place = LOOPBACK, port: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.package = package
        self.folder = folder
        self.data_dir = place.data_dir or folder / "data"
        self.config = folder / f"{package}.toml"
        self.port = port or free_port()
        self.log_level = "info"
        self._python = sys.executable
        super().__init__(
            name,
            [self._python, "-m", package, "run", "--config", self.config],
            log=folder / "log",
            place=place,
        )

    def conninfo(self, **parts: str | int) -> str:
        base: dict[str, str | int] = {"host": self.place.address, "port": self.port, "user": "postgres"}
        return make_conninfo("", **base | {"dbname": "postgres", "connect_timeout": 5} | parts)

    def peer_conninfo(self) -> str:
        """The same for the other programs of the test."""
        return self.conninfo(host=self.place.peer_address)

    def connect(self, **parts: str | int) -> psycopg.Connection[Any]:
        return psycopg.connect(self.conninfo(**parts), autocommit=True)

    def query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        ((text,),) = self.query(f"SHOW {self.package}.status")
        shown: dict[str, Any] = json.loads(text)
        return shown

    def ready(self, *, deadline_s: float = 60.0) -> Self:
        """Wait until it answers."""

        def look() -> dict[str, Any]:
            assert self.alive, f"{self.name} ended: exit={self.exit_code}\n{self.tail(20)}"
            return self.status()

        until(look, what=f"{self.name} answers", deadline_s=deadline_s, ignoring=NOT_YET)
        return self

    def cli(self, *arguments: str) -> list[str]:
        """A command line of its package, to be run by the caller."""
        return [self._python, "-m", self.package, *arguments]

    def turn_to(self, python: str | Path) -> None:
        """From the next start on, be what that interpreter has installed: another version."""
        self._command = [str(python) if part == self._python else part for part in self._command]
        self._python = str(python)

    def write_config(self, **values: object) -> None:
        """Write the TOML file: strings, numbers, lists of strings and one level of tables."""
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self.config.write_text("\n".join(lines) + "\n")


class Stack:
    """The whole of it, not yet started.

    Args:
        folder: made if missing.
        primary: started by the caller or by ``start``; its data directory exists.
        nodes: how many walproxy nodes.
        places: where a program of that name runs, if not on loopback and in its folder.
        settings: added to the configuration of every node.
    """

    def __init__(
        self,
        folder: Path,
        primary: Server,
        *,
        nodes: int = 3,
        places: Mapping[str, Place] | None = None,
        **settings: object,
    ) -> None:
        self.folder = folder
        self.primary = primary
        self._settings = settings
        places = places or {}

        def program(package: str, name: str, into: str) -> Program:
            place = places.get(name, LOOPBACK)
            # In a network of its own nobody else has the port.
            return Program(package, name, folder / into, place=place, port=PORT if place.enter else None)

        self.nodes = [program("walproxy", f"node-{letter}", letter) for letter in "abcdefg"[:nodes]]
        self.pageserver = program("pageserver", "pageserver", "pageserver")
        members = {node.name: node.peer_conninfo() for node in self.nodes}
        for node in self.nodes:
            node.write_config(
                name=node.name,
                listen=f"127.0.0.1:{node.port}",
                data_dir=str(node.data_dir),
                primary_conninfo=primary.peer_conninfo(),
                **settings,
                members=members,
            )
        self.pageserver.write_config(
            listen=f"127.0.0.1:{self.pageserver.port}",
            data_dir=str(self.pageserver.data_dir),
            walproxy=[node.peer_conninfo() for node in self.nodes],
            primary_conninfo=primary.peer_conninfo(),
        )

    def new_node(self, name: str) -> Program:
        """A further node, which waits to be added; not started, and not among ``nodes`` yet."""
        node = Program("walproxy", name, self.folder / name)
        node.write_config(
            name=name,
            listen=f"127.0.0.1:{node.port}",
            data_dir=str(node.data_dir),
            primary_conninfo=self.primary.conninfo(),
            **self._settings,
        )
        return node

    @property
    def programs(self) -> list[Process]:
        return [self.primary.process, *self.nodes, self.pageserver]

    def start(self, *, pageserver: bool = True, deadline_s: float = 60.0, **settings: Setting) -> Self:
        """Start all that does not run; afterwards the primary waits for the quorum at each commit.

        ``deadline_s`` is that of each step; the pageserver's base backup has four of them.
        """
        if not self.primary.process.alive:
            self.primary.start()
        for node in self.nodes:
            if not node.alive:
                node.start()
        for node in self.nodes:
            node.ready(deadline_s=deadline_s)
        self.wait_for_upstream(deadline_s=deadline_s)
        self.primary.reload(
            synchronous_standby_names=f"ANY 1 ({GROUP})", **{"synchronous_commit": "on"} | settings
        )
        self.wait_for_quorum(deadline_s=deadline_s)
        self.wait_for_serving(deadline_s=deadline_s)
        if pageserver:
            self.pageserver.start()
            self.wait_for_pages(deadline_s=4 * deadline_s)
        return self

    def verify(self, *options: str, deadline_s: float = 600.0) -> dict[str, Any]:
        """What ``pageserver verify`` says of every page, with its ``exit_code``."""
        ends = ("--primary", self.primary.conninfo(), "--pageserver", self.pageserver.conninfo())
        done = subprocess.run(
            self.pageserver.cli("verify", *ends, "--create-extension", "--json", *options),
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert done.stdout.strip(), f"verify said nothing: exit={done.returncode}\n{done.stderr[-2000:]}"
        report: dict[str, Any] = json.loads(done.stdout)
        return report | {"exit_code": done.returncode}

    def stop(self) -> None:
        """End everything, the readers first; each must end with exit code 0."""
        for program in (self.pageserver, *self.nodes):
            code = program.stop() if program.alive else 0
            assert code == 0, f"{program.name} ended with {code}:\n{program.tail()}"
        if self.primary.process.alive:
            # Without its quorum it would wait for ever in the shutdown of its walsender.
            self.primary.stop()

    def kill(self) -> None:
        for program in self.programs:
            with contextlib.suppress(ProcessLookupError):
                program.kill()

    def roles(self) -> Iterator[tuple[Program, dict[str, Any]]]:
        """The nodes that answer now, with their status."""
        for node in self.nodes:
            if node.alive:
                with contextlib.suppress(*NOT_YET):
                    yield node, node.status()

    def proposer(self, *, deadline_s: float = 60.0) -> Program:
        """The node that holds the upstream connection, once there is one."""
        return until(self._proposer, what="a node proposes", deadline_s=deadline_s)

    def _proposer(self) -> Program | None:
        # Two may say so while an old one has not yet heard of the newer term.
        proposing = [(status["term"], node) for node, status in self.roles() if status["role"] == "proposer"]
        return max(proposing, key=lambda pair: int(pair[0]))[1] if proposing else None

    def conninfo(self, *nodes: Program) -> str:
        """One connection string for several nodes (default: all), tried in their order."""
        chosen = nodes or self.nodes
        return _several(chosen, [node.place.address for node in chosen])

    def peer_conninfo(self) -> str:
        """One for all nodes, for the other programs of the test."""
        return _several(self.nodes, [node.place.peer_address for node in self.nodes])

    def commit_lsn(self) -> str | None:
        """What a proposer calls committed in its own term; None as long as nobody can say."""
        for _, status in self.roles():
            if status["role"] != "proposer":
                continue
            term, _, start_lsn = status["term_history"][-1]
            commit_lsn = str(status["commit_lsn"])
            # Before, it is only what this node had heard of in earlier terms: a lower bound.
            if term == status["term"] and parse_lsn(commit_lsn) >= parse_lsn(start_lsn):
                return commit_lsn
        return None

    def acceptors(self) -> Sequence[Program]:
        proposer = self.proposer()
        return [node for node in self.nodes if node is not proposer]

    def wait_for_upstream(self, *, deadline_s: float = 60.0) -> None:
        """Until the primary's walsender streams to the group."""
        self._wait("state = 'streaming'", what="the primary streams to a node", deadline_s=deadline_s)

    def wait_for_quorum(self, *, deadline_s: float = 60.0) -> None:
        """Until the primary's commits wait for the group."""
        self._wait("sync_state = 'quorum'", what="the primary waits for the quorum", deadline_s=deadline_s)

    def wait_for_serving(self, *, deadline_s: float = 60.0) -> None:
        """Until every node knows of committed WAL: before, it refuses stock clients, and some do not try again."""

        def look() -> bool:
            return all(parse_lsn(str(node.status()["commit_lsn"])) > 0 for node in self.nodes)

        until(look, what="every node serves committed WAL", deadline_s=deadline_s, ignoring=NOT_YET)

    def wait_for_pages(self, *, deadline_s: float = 120.0) -> None:
        """Until the pageserver has all of a consistent cluster."""
        self.pageserver.ready(deadline_s=deadline_s)
        until(
            lambda: self.pageserver.status()["state"] == "serving",
            what="the pageserver serves",
            deadline_s=deadline_s,
            ignoring=NOT_YET,
        )

    def _wait(self, condition: str, *, what: str, deadline_s: float) -> None:
        query = f"select count(*) from pg_stat_replication where application_name = %s and {condition}"
        until(lambda: self.primary.value(query, GROUP), what=what, deadline_s=deadline_s, ignoring=NOT_YET)


def _several(nodes: Sequence[Program], hosts: Sequence[str]) -> str:
    ports = ",".join(str(node.port) for node in nodes)
    return make_conninfo("", host=",".join(hosts), port=ports, user="postgres", connect_timeout=5)
