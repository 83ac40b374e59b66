"""A base backup, streamed from a running server over a replication connection."""

import re
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from psycopg import OperationalError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pageserver.errors import BootstrapFailed
from walproxy.wire.errors import MalformedInput
from walproxy.wire.lsn import Lsn, parse_lsn

# No TABLESPACE_MAP: with it, 15 leaves out tablespaces that are plain directories under pg_tblspc.
_COMMAND = b"BASE_BACKUP (LABEL 'pageserver', PROGRESS, CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes')"
_SILENCE_MAX_S = 300.0
"""A fast checkpoint may take minutes; a server that is silent for longer is gone."""
_POLL_S = 1.0


class BackupSink(Protocol):
    """Takes a base backup as it comes. Raises BootstrapFailed to stop it."""

    def begin(self, start_lsn: Lsn, tli: int, estimate_bytes: int) -> None:
        """The server has made its checkpoint and the copy begins."""

    def begin_archive(self, spc: int | None) -> None:
        """The next archive: a tablespace's, or (None) the data directory's own."""

    def begin_manifest(self) -> None:
        """The archives are through; the list of files follows."""

    def data(self, piece: memoryview) -> None:
        """Bytes of the archive or of the list of files."""

    def end(self) -> None:
        """All of it came."""


@dataclass(frozen=True, slots=True)
class Primary:
    """What the server of a replication connection says of itself."""

    system_id: int
    tli: int


class BackupConnection:
    """A blocking replication connection, for a thread of its own. `stop` ends any wait."""

    def __init__(self, conninfo: str, *, stop: threading.Event) -> None:
        self._stop = stop
        parameters = conninfo_to_dict(conninfo)
        parameters.setdefault("application_name", "pageserver")
        parameters["replication"] = "true"
        self._pgconn: pq.abc.PGconn = pq.PGconn.connect(make_conninfo("", **parameters).encode())
        if self._pgconn.status != pq.ConnStatus.OK:
            raise BootstrapFailed("cannot connect to the primary", reason=_message(self._pgconn))

    def close(self) -> None:
        """Drop the connection."""
        self._pgconn.finish()

    def identify(self) -> Primary:
        """Ask who the server is."""
        self._pgconn.send_query(b"IDENTIFY_SYSTEM")
        (row,) = self._rows(self._result())
        self._drain()
        return Primary(system_id=int(row[0] or 0), tli=int(row[1] or 0))

    def receive(self, sink: BackupSink) -> Lsn:
        """Stream a base backup into a sink.

        Returns:
            The end LSN of the backup: redo up to there makes it consistent.

        Raises:
            BootstrapFailed: the server refused or went away, or the stream is not of its form.
        """
        self._pgconn.send_query(_COMMAND)
        (start,) = self._rows(self._result())
        tablespaces = self._rows(self._result())
        estimate_kib = sum(int(row[2] or 0) for row in tablespaces)
        sink.begin(_lsn(start[0]), int(start[1] or 0), estimate_kib << 10)
        result = self._result()
        if result.status != pq.ExecStatus.COPY_OUT:
            raise BootstrapFailed("the primary sent no archives", status=pq.ExecStatus(result.status).name)
        for message in self._copy_messages():
            match bytes(message[:1]):
                case b"d":
                    sink.data(message[1:])
                case b"n":
                    sink.begin_archive(_tablespace(bytes(message[1:])))
                case b"m":
                    sink.begin_manifest()
                case b"p":
                    pass
                case kind:
                    raise BootstrapFailed("unknown message in a base backup", kind=kind)
        sink.end()
        (end,) = self._rows(self._result())
        self._drain()
        return _lsn(end[0])

    def _copy_messages(self) -> Iterator[memoryview]:
        while True:
            try:
                length, data = self._pgconn.get_copy_data(1)
            except OperationalError as error:
                raise BootstrapFailed("the base backup broke off", reason=str(error).strip()) from error
            if length > 0:
                yield data
            elif length == 0:
                self._wait_for_input()
            else:
                return

    def _result(self) -> pq.abc.PGresult:
        result = self._any_result()
        if result is None:
            raise BootstrapFailed("the primary answered less than it should")
        return result

    def _any_result(self) -> pq.abc.PGresult | None:
        while self._pgconn.flush():
            select.select([], [self._pgconn.socket], [], _POLL_S)
        while self._pgconn.is_busy():
            self._wait_for_input()
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            reason = (result.error_message or b"").decode(errors="replace").strip()
            raise BootstrapFailed("the primary refused", reason=reason)
        return result

    def _drain(self) -> None:
        while self._any_result() is not None:
            pass

    def _wait_for_input(self) -> None:
        silent_s = 0.0
        while not select.select([self._pgconn.socket], [], [], _POLL_S)[0]:
            silent_s += _POLL_S
            if self._stop.is_set():
                raise BootstrapFailed("stopped before the base backup was through")
            if silent_s >= _SILENCE_MAX_S:
                raise BootstrapFailed("the primary is silent", seconds=silent_s)
        if self._stop.is_set():
            raise BootstrapFailed("stopped before the base backup was through")
        try:
            self._pgconn.consume_input()
        except OperationalError as error:
            raise BootstrapFailed("lost the primary", reason=str(error).strip()) from error

    @staticmethod
    def _rows(result: pq.abc.PGresult) -> list[list[str | None]]:
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise BootstrapFailed(
                "the primary answered something else than rows", status=pq.ExecStatus(result.status).name
            )
        return [
            [
                None if (value := result.get_value(row, column)) is None else value.decode()
                for column in range(result.nfields)
            ]
            for row in range(result.ntuples)
        ]


def _tablespace(message: bytes) -> int | None:
    name = message.split(b"\0", 1)[0]
    match = re.fullmatch(rb"(?:base|(\d{1,10}))\.tar", name)
    if match is None:
        raise BootstrapFailed("the primary sent an archive of an unknown kind", name=name)
    return None if match[1] is None else int(match[1])


def _lsn(text: str | None) -> Lsn:
    try:
        return parse_lsn(text or "")
    except MalformedInput as error:
        raise BootstrapFailed("the primary sent no position", text=text) from error


def _message(pgconn: pq.abc.PGconn) -> str:
    return pgconn.get_error_message().strip()
