"""`walproxy inspect --sql`: a query on records, through DuckDB."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from walcore._native import WalColumns, WalInspector
from walproxy.errors import WalproxyError
from walproxy.inspect.columns import Arrow
from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Names
from walproxy.inspect.optional import optional
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.wanted import Wanted

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS: Final = 1000
_BATCHES_AHEAD: Final = 2
# A position as Postgres prints it, and back.
_MACROS: Final = """
    create macro pg_lsn(position) as printf('%X/%X', position >> 32, position & 4294967295);
    create macro lsn(shown) as
        ('0x' || split_part(shown, '/', 1))::ubigint * 4294967296 + ('0x' || split_part(shown, '/', 2))::ubigint;
"""


class _AbandonedError(Exception):
    """The query wants no more batches."""


class WalTable:
    """A table whose rows are read out of WAL each time it is scanned. Batches go by; they are not kept.

    Attributes:
        reading: of the last scan that came to its end.
        error: what ended a scan.
    """

    def __init__(
        self,
        read: Callable[[Any], Reading],
        schema: "pa.Schema",
        batch: Callable[[WalColumns, int], "pa.RecordBatch"],
    ) -> None:
        self._read = read
        self._schema = schema
        self._batch = batch
        self._pa = optional("pyarrow", extra="sql", option="--sql")
        self.reading: Reading | None = None
        self.error: BaseException | None = None

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = self._pa.RecordBatchReader.from_batches(self._schema, self._scan())
        return reader.__arrow_c_stream__(requested_schema)

    def _scan(self) -> "Iterator[pa.RecordBatch]":
        """Reading pushes and a scan pulls: a thread reads, a few batches ahead at most."""
        ahead: queue.Queue[pa.RecordBatch | None] = queue.Queue(_BATCHES_AHEAD)
        abandoned = threading.Event()
        thread = threading.Thread(target=self._push, args=(ahead, abandoned), daemon=True)
        thread.start()
        try:
            while (batch := ahead.get()) is not None:
                yield batch
            if self.error is not None:
                raise self.error
        finally:
            abandoned.set()
            thread.join()

    def _push(self, ahead: "queue.Queue[pa.RecordBatch | None]", abandoned: threading.Event) -> None:
        columns = WalColumns()
        major = 0

        def put(batch: "pa.RecordBatch | None") -> None:
            while not abandoned.is_set():
                try:
                    return ahead.put(batch, timeout=0.05)
                except queue.Full:
                    continue
            raise _AbandonedError

        def render(inspector: WalInspector, wal: bytes, last: bool) -> None:
            nonlocal major
            columns.feed(inspector, wal, last=last)
            major = inspector.major or major
            if columns.is_full:
                put(self._batch(columns, major))

        try:
            self.reading = self._read(render)
            if columns:
                put(self._batch(columns, major))
        except _AbandonedError:
            return
        except Exception as error:  # noqa: BLE001 - handed to the thread that scans
            self.error = error
        try:
            put(None)
        except _AbandonedError:
            return


def run_query(
    read: Read, wanted: Wanted, sql: str, names: Names | None, *, console: Console, as_json: bool
) -> Reading:
    """Run a query on the tables ``records`` and ``blocks``, and print what it gives.

    Raises:
        TargetUnusable: DuckDB is missing, or does not take the query.
        WalDamaged: as `Read`; nothing is printed then but rows that came before.
    """
    duckdb = optional("duckdb", extra="sql", option="--sql")
    optional("pytz", extra="sql", option="--sql")
    arrow = Arrow(names, option="--sql")
    tables = {
        "records": WalTable(lambda render: read(wanted, render), arrow.flat_records, arrow.records_batch),
        "blocks": WalTable(lambda render: read(wanted, render), arrow.blocks, arrow.blocks_batch),
    }
    with duckdb.connect(":memory:") as connection:
        # One scan at a time pulls; what comes out in the order of the WAL stays in it.
        connection.execute(_MACROS)
        for name, table in tables.items():
            connection.register(name, table)
        try:
            result = connection.execute(sql)
            _print(console, result, as_json=as_json)
        except duckdb.Error as error:
            for table in tables.values():
                if isinstance(table.error, WalproxyError):
                    raise table.error from error
            raise TargetUnusable("the query fails", reason=str(error).strip()) from error
    return next((table.reading for table in tables.values() if table.reading is not None), Reading())


def _print(console: Console, result: Any, *, as_json: bool) -> None:  # noqa: ANN401  # of an optional package
    columns = [description[0] for description in result.description or []]
    first = True
    while rows := result.fetchmany(_ROWS):
        if as_json:
            for row in rows:
                typer.echo(json.dumps(dict(zip(columns, map(_plain, row), strict=True)), default=str))
        else:
            table = Table(box=None, show_header=first, pad_edge=False, padding=(0, 2, 0, 0))
            for name, value in zip(columns, rows[0], strict=True):
                table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
            for row in rows:
                table.add_row(*("" if value is None else str(_plain(value)) for value in row))
            console.print(table)
        first = False


def _plain(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return value
