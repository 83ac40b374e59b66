"""`walproxy inspect --transactions`: when each ended and how, what it changed, how much WAL it took."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from walcore._native import WalInspector, WalTransactions
from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Key, Names
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.wanted import Wanted
from walproxy.wire.lsn import Lsn

# What Postgres counts microseconds from.
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SHOWN_RELATIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Around:
    """A time, and how far from it still counts."""

    time: datetime
    within: timedelta

    @classmethod
    def parse(cls, text: str, within_s: float) -> "Around":
        """ISO 8601; the reader's time zone where none is given.

        Raises:
            TargetUnusable: it is no time.
        """
        try:
            return cls(datetime.fromisoformat(text).astimezone(), timedelta(seconds=within_s))
        except (ValueError, OverflowError) as error:
            raise TargetUnusable("not a time, as in 2026-11-22 17:05:00+01", at=text) from error

    def holds(self, time: datetime | None) -> bool:
        return time is not None and abs(time - self.time) <= self.within


@dataclass(frozen=True, slots=True)
class Asked:
    """Which transactions to show; None demands nothing.

    Args:
        xid: the transaction, or a subtransaction of it.
        relation: changed by it.
        limit: how many at most.
    """

    around: Around | None = None
    xid: int | None = None
    relation: Key | None = None
    limit: int | None = None

    def wants(self, transaction: Mapping[str, Any]) -> bool:
        return (
            (self.xid is None or self.xid == transaction["xid"] or self.xid in transaction["subxids"])
            and (
                self.relation is None or any(self.relation == change[0] for change in transaction["changes"])
            )
            and (self.around is None or self.around.holds(time_of(transaction)))
        )


def time_of(transaction: Mapping[str, Any]) -> datetime | None:
    """When it ended, by the server's clock."""
    us = transaction["time_us"]
    try:
        return None if us is None else _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None


def show_transactions(
    read: Read, wanted: Wanted, asked: Asked, names: Names | None, *, console: Console, as_json: bool
) -> Reading:
    """Print the transactions asked for in the order of their ends, then those that have not ended."""
    following = WalTransactions()
    left = asked.limit
    header = True

    def show(found: Iterable[Mapping[str, Any]]) -> None:
        nonlocal left, header
        chosen = [transaction for transaction in found if asked.wants(transaction)][:left]
        left = None if left is None else left - len(chosen)
        if as_json:
            for transaction in chosen:
                sys.stdout.write(json.dumps(_row(transaction, names)) + "\n")
        elif chosen:
            _print(console, chosen, names, header=header)
            header = False

    def render(inspector: WalInspector, wal: bytes, last: bool) -> None:
        show(following.feed(inspector, wal, last=last))

    reading = read(replace(wanted, xid=None, relation=None, limit=None), render)
    show(following.unfinished())
    return reading


def _row(transaction: Mapping[str, Any], names: Names | None) -> dict[str, Any]:
    time = time_of(transaction)
    relations = []
    for key, records, size, image_bytes, inserted, updated, deleted in transaction["changes"]:
        relation: dict[str, Any] = {"relation": _numbers(key)}
        if names is not None and (label := names.label(key)):
            relation["name"] = label
        counts = {"records": records, "bytes": size, "image_bytes": image_bytes}
        tuples = {"inserted": inserted, "updated": updated, "deleted": deleted}
        relations.append(relation | counts | tuples)
    return {
        "xid": transaction["xid"],
        "state": transaction["state"],
        "time": None if time is None else time.isoformat(),
        "first_lsn": str(Lsn(transaction["first_lsn"])),
        "end_lsn": str(Lsn(transaction["end_lsn"])),
        "records": transaction["records"],
        "bytes": transaction["bytes"],
        "image_bytes": transaction["image_bytes"],
        "subxids": transaction["subxids"],
        "relations": relations,
    }


def _print(
    console: Console, found: Sequence[Mapping[str, Any]], names: Names | None, *, header: bool
) -> None:
    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in (("ended", 26), ("state", 11), ("xid", 10), ("first lsn", 17), ("end lsn", 17)):
        table.add_column(name, min_width=width, no_wrap=True)
    for name, width in (("records", 8), ("bytes", 10), ("of images", 10)):
        table.add_column(name, min_width=width, justify="right", no_wrap=True)
    table.add_column("changed", overflow="fold")
    for transaction in found:
        time = time_of(transaction)
        ended = "" if time is None else time.astimezone().isoformat(" ", "milliseconds")
        positions = (str(Lsn(transaction["first_lsn"])), str(Lsn(transaction["end_lsn"])))
        volumes = (transaction["records"], transaction["bytes"], transaction["image_bytes"])
        cells = (ended, transaction["state"], str(transaction["xid"]), *positions, *map(str, volumes))
        table.add_row(*cells, _changes(transaction["changes"], names))
    console.print(table)


def _changes(changes: Sequence[Sequence[Any]], names: Names | None) -> str:
    """The relations with most bytes first, a line each."""
    most = sorted(changes, key=lambda change: -change[2])
    lines = []
    for key, records, size, _, *tuples in most[:_SHOWN_RELATIONS]:
        label = (names and names.label(key)) or _numbers(key)
        done = [f"{sign}{count}" for sign, count in zip("+~-", tuples, strict=True) if count]
        lines.append(" ".join([label, *(done or [f"{records} record{'s' * (records != 1)}"]), f"{size} B"]))
    if len(most) > _SHOWN_RELATIONS:
        lines.append(f"and {len(most) - _SHOWN_RELATIONS} more")
    return "\n".join(lines)


def _numbers(key: Key) -> str:
    return "/".join(map(str, key))
