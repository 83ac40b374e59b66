"""A private stock PostgreSQL on a loopback port and a Unix socket, to be stopped and killed at will."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from tools.postgres import major_of
from tools.process import LOOPBACK, Place, Process, free_port, server_user
from tools.wait import until

Setting = str | int | bool
Argument = str | Path | int

DEFAULTS: Mapping[str, Setting] = {
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_connections": 100,
    "max_prepared_transactions": 20,
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "wal_sender_timeout": "10s",
    "log_line_prefix": "%m [%p] %a ",
}


class Server:
    """One PostgreSQL: a data directory, its process, its programs.

    Args:
        folder: made if missing; holds ``data``, the socket and the log. Keep its path short.
        bindir: as ``tools.postgres.bindir`` gives it.
        name: what reports call it.
        place: where it runs; beyond loopback, let others in with ``open_to_network``.
        port: None draws a free one.
    """

    def __init__(
        self,
        folder: Path,
        bindir: Path,
        *,
        name: str = "postgres",
        place: Place = LOOPBACK,
        port: int | None = None,
    ) -> None:
        self.bindir = bindir
        self.major = major_of(bindir)
        self.folder = folder
        self.data_dir = place.data_dir or folder / "data"
        self.place = place
        self.port = port or free_port()
        self._user = server_user()
        folder.mkdir(parents=True, exist_ok=True)
        self._own(folder)
        command = self.command("postgres", "-D", self.data_dir, "-p", self.port, "-k", folder)
        self.process = Process(name, command, log=folder / "log", user=self._user, place=place)

    # Life.

    def initdb(self, *, checksums: bool = False, segment_size_mb: int = 16) -> Self:
        """Make the data directory: superuser postgres, locale C, whoever is on this machine is trusted."""
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        if checksums:
            options.append("--data-checksums")
        elif self.major >= 18:
            options.append("--no-data-checksums")
        self.run("initdb", "-D", self.data_dir, *options, f"--wal-segsize={segment_size_mb}")
        self.configure(listen_addresses="127.0.0.1", **DEFAULTS)
        return self

    def configure(self, **settings: Setting) -> Self:
        """Append to postgresql.conf: the last one of a name counts, from the next start or reload on."""
        with (self.data_dir / "postgresql.conf").open("a") as conf:
            for name, value in settings.items():
                shown = (str(value).lower() if isinstance(value, bool) else str(value)).replace("'", "''")
                conf.write(f"{name} = '{shown}'\n")
        return self

    def open_to_network(self) -> Self:
        """Listen at every address, and trust whoever is in a network of ours."""
        with (self.data_dir / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\nhost replication all samenet trust\n")
        return self.configure(listen_addresses="*")

    def start(self, *, deadline_s: float = 60.0) -> Self:
        """Start it and wait until it answers queries."""
        self.process.start()
        until(
            self._answers,
            what=f"{self.process.name} answers",
            deadline_s=deadline_s,
            ignoring=(psycopg.Error,),
        )
        return self

    def _answers(self) -> bool:
        assert self.process.alive, f"{self.process.name} ended:\n{self.process.tail(20)}"
        return bool(self.query("select 1"))

    def stop(self, *, immediate: bool = False, deadline_s: float = 60.0) -> None:
        """End it with a shutdown checkpoint, or without one."""
        self.process.stop(signal.SIGQUIT if immediate else signal.SIGINT, deadline_s=deadline_s)

    def kill(self) -> None:
        """SIGKILL to the postmaster and every backend."""
        self.process.kill()

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def reload(self, **settings: Setting) -> None:
        self.configure(**settings)
        self.query("select pg_reload_conf()")

    def destroy(self) -> None:
        """Kill it and remove all it had."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Talk.

    def conninfo(self, **parts: str | int) -> str:
        """A libpq connection string: TCP, unless ``host`` names a folder (its socket is in ``folder``)."""
        base: dict[str, str | int] = {"host": self.place.address, "port": self.port, "user": "postgres"}
        return make_conninfo("", **base | {"dbname": "postgres"} | parts)

    def peer_conninfo(self) -> str:
        """The same for the other programs of the test."""
        return self.conninfo(host=self.place.peer_address)

    def connect(self, **parts: str | int) -> psycopg.Connection[Any]:
        """A connection in autocommit mode; the caller closes it."""
        return psycopg.connect(self.conninfo(**parts), autocommit=True, connect_timeout=10)

    def query(self, query: str, *values: object, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one statement, over a connection of its own; empty where it gives none."""
        with self.connect(dbname=dbname) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *values: object, dbname: str = "postgres") -> Any:  # noqa: ANN401  # whatever SQL gives
        """The only column of the only row."""
        ((value,),) = self.query(query, *values, dbname=dbname)
        return value

    # Programs.

    def run(
        self, program: str, *arguments: Argument, check: bool = True, deadline_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs as the server's user, connected here by environment."""
        done = subprocess.run(
            self.command(program, *arguments),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
            user=self._user.uid,
            group=self._user.gid,
            extra_groups=self._user.groups,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise AssertionError(f"{program} failed: exit={done.returncode}\n{said}")
        return done

    def background(self, program: str, *arguments: Argument, name: str | None = None) -> Process:
        """The same, as a process not yet started, with a log beside the server's."""
        name = name or program
        command = self.command(program, *arguments)
        log = self.folder / f"{name}.log"
        return Process(name, command, log=log, env=self.environment, user=self._user)

    def command(self, program: str, *arguments: Argument) -> list[str]:
        return [str(self.bindir / program), *(str(argument) for argument in arguments)]

    @property
    def environment(self) -> dict[str, str]:
        """What libpq programs need to find this server."""
        path = f"{self.bindir}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        target = {
            "PGHOST": self.place.address,
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }
        return {"PATH": path, "LC_ALL": "C", "PG_BIN": str(self.bindir)} | target

    def base_backup(self, target: Path, *options: str, source: str | None = None) -> Path:
        """``pg_basebackup`` into ``target``, of this server or of the conninfo ``source``."""
        self.own(target.parent)
        origin = ["-d", source] if source else []
        self.run("pg_basebackup", "-D", target, "-c", "fast", *origin, *(options or ("-X", "stream")))
        return target

    def restore(self, backup: Path) -> Self:
        """Make a copy of a base backup the data directory."""
        subprocess.run(["cp", "-a", "--reflink=auto", backup, self.data_dir], check=True)
        return self

    def own(self, folder: Path) -> Path:
        """Make ``folder`` (and not what is in it) writable by the server's user."""
        folder.mkdir(parents=True, exist_ok=True)
        self._own(folder)
        return folder

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the data directory, as the server's own."""
        path = self.data_dir / name
        path.write_bytes(content)
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._user.uid is not None:
            os.chown(path, self._user.uid, self._user.gid or 0)
