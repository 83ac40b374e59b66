"""The command `walproxy inspect`."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from typer.core import TyperCommand

from walcore._native import WalInspector, rmgr_names
from walproxy.errors import WalproxyError
from walproxy.inspect.catalog import read_names
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.explain import answer, question
from walproxy.inspect.live import read_server
from walproxy.inspect.names import Names
from walproxy.inspect.naming import naming
from walproxy.inspect.page import parse_relation
from walproxy.inspect.reading import Reading, Render, read_files
from walproxy.inspect.stretch import stretches_of
from walproxy.inspect.table import BATCH, print_records, print_stats, stats_rows
from walproxy.inspect.waldump.asked import arguments_for
from walproxy.inspect.waldump.run import run
from walproxy.inspect.wanted import Wanted
from walproxy.wire.errors import MalformedInput
from walproxy.wire.lsn import Lsn, parse_lsn

FORKS: Final = ("main", "fsm", "vm", "init")


class StatsBy(StrEnum):
    """What totals are kept by."""

    RMGR = "rmgr"
    RECORD = "record"


class Layout(StrEnum):
    """How records are shown to people."""

    TABLE = "table"
    PG_WALDUMP = "pg_waldump"


class InspectCommand(TyperCommand):
    """Lets ``--stats`` and ``-z`` stand alone, as pg_waldump does; hands its own command lines over."""

    # typer brings its own click since 0.16; its context has no public name.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if (arguments := arguments_for(args)) is not None:
            raise typer.Exit(run(arguments, os.environ, sys.stdout.buffer, sys.stderr.write))
        bare = {"--stats": "--stats=rmgr", "-z": "--stats=rmgr"}
        return super().parse_args(ctx, [bare.get(arg, arg) for arg in args])


COMMAND_CLASS: Final = InspectCommand


def inspect(
    target: Annotated[str, typer.Argument(help="A WAL file, a folder of them, or a server's conninfo.")],
    *,
    rmgr: Annotated[
        list[str] | None, typer.Option("--rmgr", "-r", help="Only this resource manager; may be repeated.")
    ] = None,
    relation: Annotated[
        str | None,
        typer.Option(
            "--relation",
            "-R",
            metavar="T/D/R",
            help="Only records that touch this relation; with --names also database.schema.relation.",
        ),
    ] = None,
    block: Annotated[
        int | None, typer.Option("--block", "-B", min=0, max=0xFFFF_FFFE, help="… and this block of it.")
    ] = None,
    fork: Annotated[
        str | None, typer.Option("--fork", "-F", help="Only this fork: main, fsm, vm, init.")
    ] = None,
    xid: Annotated[
        int | None, typer.Option("--xid", "-x", min=0, max=0xFFFF_FFFF, help="Only this transaction.")
    ] = None,
    full_page: Annotated[
        bool, typer.Option("--fullpage", "-w", help="Only records with full-page images.")
    ] = False,
    start: Annotated[str | None, typer.Option("--start", "-s", metavar="LSN", help="Where to begin.")] = None,
    end: Annotated[str | None, typer.Option("--end", "-e", metavar="LSN", help="Where to stop.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="Stop after so many records.")
    ] = None,
    timeline: Annotated[
        int | None,
        typer.Option("--timeline", "-t", min=1, help="The timeline to follow; the newest by default."),
    ] = None,
    stats: Annotated[
        StatsBy | None, typer.Option("--stats", "-z", help="Totals instead of records.", case_sensitive=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    layout: Annotated[
        Layout,
        typer.Option(
            "--format", help="table, or pg_waldump: that program's own command line, output and exit codes."
        ),
    ] = Layout.TABLE,
    block_details: Annotated[
        bool,
        typer.Option("--bkp-details", "-b", help="In pg_waldump's text: a line for each block reference."),
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Read on behind damage; it is still reported.")
    ] = False,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            metavar="FILE|CONNINFO",
            help="Names of relations: what `walproxy names` saved, or a server; the last of several knows best.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Write records to a .parquet or .arrow file (extra: walproxy\\[arrow]).",
        ),
    ] = None,
    sql: Annotated[
        str | None,
        typer.Option("--sql", help="Run a query on the tables records and blocks (extra: walproxy\\[sql])."),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            "--page",
            metavar="REL/BLOCK",
            help="The history of one page, also where records do not name it: T/D/R/block, or with --names "
            "database.schema.relation/block; --fork for another than main.",
        ),
    ] = None,
    transactions: Annotated[
        bool,
        typer.Option(
            "--transactions",
            help="Transactions in the order of their ends, with what they changed; also with --xid, --relation.",
        ),
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="Only transactions that ended around this time (ISO 8601)."
        ),
    ] = None,
    within: Annotated[
        float, typer.Option("--within", metavar="SECONDS", min=0, help="How far from --at still counts.")
    ] = 60.0,
    usage: Annotated[
        bool,
        typer.Option(
            "--usage",
            help="What fills the WAL: by relation, resource manager, full-page images; what settings would spare.",
        ),
    ] = False,
) -> None:
    """Show the records in WAL of PostgreSQL 15 to 18, their totals, or what they come to.

    Exit codes: 0 all was read, 1 the target or an option does not fit, 3 the WAL is damaged.
    """
    try:
        known = read_names(names) if names else None
        wanted = Wanted(
            rmgrs=_rmgrs(rmgr),
            xid=xid,
            relation=None if relation is None else parse_relation(relation, known),
            fork=_fork(fork),
            block=block,
            full_page=full_page,
            start_lsn=_lsn(start),
            end_lsn=_lsn(end),
            limit=limit,
        )
        if block is not None and relation is None:
            raise TargetUnusable("option --block requires option --relation")
        asked = question(
            to=to,
            sql=sql,
            page=page,
            transactions=transactions,
            at=at,
            within_s=within,
            usage=usage,
            wanted=wanted,
            names=known,
        )
        if asked is not None and (stats is not None or layout is not Layout.TABLE):
            raise TargetUnusable("--stats and --format do not go with this option", option=asked.options[0])
        source = Source(target, timeline, go_on, known)
        console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 200)
        if asked is not None:
            reading = answer(asked, source.read, wanted, known, console=console, as_json=as_json)
        elif stats is not None:
            reading = source.read(wanted, _count, totals=True)
            _show_stats(console, reading, stats, as_json=as_json)
        else:
            write = _writer(console, known, layout, as_json=as_json, block_details=block_details)
            reading = source.read(wanted, write)
        _report(reading)
    except WalproxyError as error:
        sys.stdout.flush()
        typer.echo(f"walproxy inspect: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


@dataclass(frozen=True, slots=True)
class Source:
    """Where WAL is read from, and how."""

    target: str
    timeline: int | None
    go_on: bool
    names: Names | None

    def read(self, wanted: Wanted, render: Render, *, totals: bool = False) -> Reading:
        """Read all that is wanted. Each call reads it again. ``totals``: as for `read_files`.

        Raises:
            TargetUnusable: the target does not fit, or the names are of another cluster.
            WalDamaged: as `read_files` and `read_server`.
        """
        path = Path(self.target)
        if path.exists():
            stretches = stretches_of(path, self.timeline)
            return read_files(stretches, wanted, self._checked(render), go_on=self.go_on, totals=totals)
        if "=" in self.target or "://" in self.target:
            return asyncio.run(
                read_server(self.target, wanted, self._checked(render), timeline=self.timeline)
            )
        raise TargetUnusable("no such file or folder, and no conninfo either", target=self.target)

    def _checked(self, render: Render) -> Render:
        names = self.names
        if names is None:
            return render

        def checked(inspector: WalInspector, wal: bytes, last: bool) -> None:
            names.check(inspector.system_id)
            render(inspector, wal, last)

        return checked


def _show_stats(console: Console, reading: Reading, by: StatsBy, *, as_json: bool) -> None:
    if as_json:
        for row in stats_rows(reading, by_record=by is StatsBy.RECORD):
            typer.echo(json.dumps(row))
    else:
        print_stats(console, reading, by_record=by is StatsBy.RECORD)


def _report(reading: Reading) -> None:
    """Say where the WAL ended, and every damage."""
    sys.stdout.flush()
    if reading.end_of_wal is not None:
        typer.echo(f"walproxy inspect: end of wal: {reading.end_of_wal}", err=True)
    for damage in reading.damages:
        typer.echo(f"walproxy inspect: {damage}", err=True)
    if reading.damages:
        raise typer.Exit(WalDamaged.exit_code)


def _writer(
    console: Console, names: Names | None, layout: Layout, *, as_json: bool, block_details: bool
) -> Render:
    if as_json:
        return _json_writer(names)
    if layout is Layout.PG_WALDUMP:
        return _text_writer(block_details=block_details)
    return _table_writer(console, names)


def _count(inspector: WalInspector, wal: bytes, last: bool) -> None:
    inspector.count(wal, last=last)


def _json_writer(names: Names | None) -> Render:
    named = naming(names)

    def write(inspector: WalInspector, wal: bytes, last: bool) -> None:
        sys.stdout.buffer.write(named(inspector.json(wal, last=last)))

    return write


def _text_writer(*, block_details: bool) -> Render:
    def write(inspector: WalInspector, wal: bytes, last: bool) -> None:
        sys.stdout.buffer.write(inspector.waldump(wal, last=last, block_details=block_details))

    return write


def _table_writer(console: Console, names: Names | None) -> Render:
    named = naming(names)
    printed = 0

    def write(inspector: WalInspector, wal: bytes, last: bool) -> None:
        nonlocal printed
        lines = named(inspector.json(wal, last=last)).splitlines()
        for i in range(0, len(lines), BATCH):
            print_records(console, map(json.loads, lines[i : i + BATCH]), header=printed == 0)
            printed += 1

    return write


def _rmgrs(names: list[str] | None) -> list[int] | None:
    if not names:
        return None
    known = {name.lower(): number for number, name in enumerate(rmgr_names())}
    known |= {f"custom{number:03}": number for number in range(128, 256)}
    for name in names:
        if name.lower() not in known:
            raise TargetUnusable("no such resource manager", rmgr=name, known=", ".join(rmgr_names()))
    return [known[name.lower()] for name in names]


def _fork(name: str | None) -> int | None:
    if name is None:
        return None
    if name not in FORKS:
        raise TargetUnusable("no such fork", fork=name, known=", ".join(FORKS))
    return FORKS.index(name)


def _lsn(text: str | None) -> Lsn | None:
    try:
        return None if text is None else parse_lsn(text)
    except MalformedInput as error:
        raise TargetUnusable(str(error)) from error
