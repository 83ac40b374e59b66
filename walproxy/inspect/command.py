"""The command `walproxy inspect`."""

import asyncio
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from typer.core import TyperCommand

from walcore._native import WalInspector, rmgr_names
from walproxy.errors import WalproxyError
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.live import read_server
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
        typer.Option("--relation", "-R", metavar="T/D/R", help="Only records that touch this relation."),
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
) -> None:
    """Show the records in WAL of PostgreSQL 15 to 18, or their totals.

    Exit codes: 0 all was read, 1 the target or an option does not fit, 3 the WAL is damaged.
    """
    try:
        wanted = Wanted(
            rmgrs=_rmgrs(rmgr),
            xid=xid,
            relation=_relation(relation),
            fork=_fork(fork),
            block=block,
            full_page=full_page,
            start_lsn=_lsn(start),
            end_lsn=_lsn(end),
            limit=limit,
        )
        if block is not None and relation is None:
            raise TargetUnusable("option --block requires option --relation")
        write: Render | None = None
        if as_json:
            write = _write_json
        elif layout is Layout.PG_WALDUMP:
            write = _text_writer(block_details=block_details)
        _run(target, wanted, stats, timeline, write=write, go_on=go_on)
    except WalproxyError as error:
        sys.stdout.flush()
        typer.echo(f"walproxy inspect: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


def _run(
    target: str,
    wanted: Wanted,
    stats: StatsBy | None,
    timeline: int | None,
    *,
    write: Render | None,
    go_on: bool,
) -> None:
    """``write``: how records are written; None: as a table."""
    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 200)
    if stats is not None:
        reading = _read(target, wanted, _count, timeline, go_on=go_on)
        if write is _write_json:
            for row in stats_rows(reading, by_record=stats is StatsBy.RECORD):
                typer.echo(json.dumps(row))
        else:
            print_stats(console, reading, by_record=stats is StatsBy.RECORD)
    else:
        reading = _read(target, wanted, write or _table_writer(console), timeline, go_on=go_on)
    sys.stdout.flush()
    if reading.end_of_wal is not None:
        typer.echo(f"walproxy inspect: end of wal: {reading.end_of_wal}", err=True)
    for damage in reading.damages:
        typer.echo(f"walproxy inspect: {damage}", err=True)
    if reading.damages:
        raise typer.Exit(WalDamaged.exit_code)


def _read(target: str, wanted: Wanted, render: Render, timeline: int | None, *, go_on: bool) -> Reading:
    path = Path(target)
    if path.exists():
        return read_files(stretches_of(path, timeline), wanted, render, go_on=go_on)
    if "=" in target or "://" in target:
        return asyncio.run(read_server(target, wanted, render, timeline=timeline))
    raise TargetUnusable("no such file or folder, and no conninfo either", target=target)


def _count(inspector: WalInspector, wal: bytes, last: bool) -> None:
    inspector.count(wal, last=last)


def _write_json(inspector: WalInspector, wal: bytes, last: bool) -> None:
    sys.stdout.buffer.write(inspector.json(wal, last=last))


def _text_writer(*, block_details: bool) -> Render:
    def write(inspector: WalInspector, wal: bytes, last: bool) -> None:
        sys.stdout.buffer.write(inspector.waldump(wal, last=last, block_details=block_details))

    return write


def _table_writer(console: Console) -> Render:
    printed = 0

    def write(inspector: WalInspector, wal: bytes, last: bool) -> None:
        nonlocal printed
        lines = inspector.json(wal, last=last).splitlines()
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


def _relation(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) < 1 << 32 for part in parts):
        raise TargetUnusable("a relation is tablespace/database/relfilenode", relation=text)
    spc, db, rel = map(int, parts)
    return spc, db, rel


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
