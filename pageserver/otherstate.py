"""State that is no page, over SQL: counters, relation maps, prepared transactions, databases, tablespaces."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pageserver.timeline import Timeline
from walproxy.wire.datum import BYTEA, INT8, PG_LSN, TEXT
from walproxy.wire.errors import SqlError
from walproxy.wire.function import Argument, Column, Function, Row
from walproxy.wire.lsn import Lsn

# Source: src/backend/utils/errcodes.txt.
_INVALID_PARAMETER_VALUE = "22023"
_DATABASE = re.compile(r"(\d{1,10})/(\d{1,10})", re.ASCII)
_OID_MAX = 0xFFFF_FFFF
_FULL_NAMES_SINCE = 17

Ready = Callable[[int | None], Awaitable[tuple[Timeline, Lsn]]]
Run = Callable[..., Awaitable[Any]]


class OtherState:
    """Answers the functions that ask for more than pages.

    Args:
        ready: gives the timeline once it can answer at an LSN, and the record end that is meant.
        run: makes a blocking native call elsewhere, and raises what the client is to be told.
    """

    def __init__(self, ready: Ready, run: Run) -> None:
        self._ready = ready
        self._run = run

    def functions(self) -> tuple[Function, ...]:
        """What is served."""
        lsn = Argument("lsn", PG_LSN, is_optional=True)
        return (
            Function("control_state", (lsn,), (Column("control_state", TEXT),), self.control_state),
            Function(
                "get_relation_map",
                (Argument("database", TEXT), lsn),
                (Column("get_relation_map", BYTEA),),
                self.get_relation_map,
            ),
            Function(
                "prepared_transactions",
                (lsn,),
                (Column("xid", INT8), Column("file", TEXT), Column("state", BYTEA)),
                self.prepared_transactions,
                is_set=True,
            ),
            Function("databases", (lsn,), (Column("database", TEXT),), self.databases, is_set=True),
            Function(
                "tablespaces",
                (lsn,),
                (Column("spc", INT8), Column("path", TEXT)),
                self.tablespaces,
                is_set=True,
            ),
        )

    async def control_state(self, lsn: int | None) -> Sequence[Row]:
        """Counters, settings and replication origins at an LSN, as JSON."""
        timeline, at_lsn = await self._ready(lsn)
        return ((control_json(await self._run(timeline.reader.control, at_lsn)),),)

    async def get_relation_map(self, database: str, lsn: int | None) -> Sequence[Row]:
        """The bytes of a `pg_filenode.map`; NULL if there is none then."""
        spc, db = _database(database)
        timeline, at_lsn = await self._ready(lsn)
        return ((await self._run(timeline.reader.relation_map, spc, db, at_lsn),),)

    async def prepared_transactions(self, lsn: int | None) -> Sequence[Row]:
        """Transactions prepared and not ended: the name and bytes of each one's file below `pg_twophase`."""
        timeline, at_lsn = await self._ready(lsn)
        prepared = await self._run(timeline.reader.prepared, at_lsn)
        major = timeline.manifest.major
        return [(xid, state_file_name(xid, major=major), state) for xid, state in prepared]

    async def databases(self, lsn: int | None) -> Sequence[Row]:
        """The parts that databases have in tablespaces."""
        timeline, at_lsn = await self._ready(lsn)
        return [(f"{spc}/{db}",) for spc, db in await self._run(timeline.reader.databases, at_lsn)]

    async def tablespaces(self, lsn: int | None) -> Sequence[Row]:
        """Tablespaces and where they are linked to; an empty path is one in place."""
        timeline, at_lsn = await self._ready(lsn)
        found = await self._run(timeline.reader.tablespaces, at_lsn)
        return [(spc, path.decode(errors="replace")) for spc, path in found]


def control_json(control: dict[str, Any]) -> str:
    """The control state as JSON, positions as Postgres writes them."""

    def shown(name: str, value: Any) -> Any:  # noqa: ANN401 - as JSON has it
        if isinstance(value, dict):
            return {str(key): shown(name if name == "origins" else key, item) for key, item in value.items()}
        return str(Lsn(value)) if name == "origins" or name.endswith("_lsn") else value

    return json.dumps(shown("", control))


def state_file_name(xid: int, *, major: int) -> str:
    """Name of a prepared transaction's file, given its full id: with the epoch since 17."""
    return f"{xid:016X}" if major >= _FULL_NAMES_SINCE else f"{xid & 0xFFFF_FFFF:08X}"


def _database(text: str) -> tuple[int, int]:
    match = _DATABASE.fullmatch(text)
    if match is None or max(numbers := (int(match[1]), int(match[2]))) > _OID_MAX:
        raise SqlError(
            _INVALID_PARAMETER_VALUE,
            f'not a database: "{text}"',
            hint="Write tablespace/database, as in '1663/5'; the shared relation map is that of '1664/0'.",
        )
    return numbers
