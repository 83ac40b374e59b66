"""`pageserver write-files`: the pages that the pageserver rebuilds, as the files of a data directory."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pageserver.backupfiles import FORK_NUMBERS
from pageserver.config import load_settings
from pageserver.errors import ConfigInvalid, DataDamaged, ExitCode, LsnNotReached, Refused
from pageserver.layout import Layout, open_layout
from pageserver.log import log_to_stderr
from pageserver.manifest import Manifest, read_manifest, sync_dir
from pageserver.timeline import LayerLimits, Timeline
from pageserver.verify.errors import DirectoryUnsuitable
from pageserver.verify.relationfile import file_name, folder_path
from pageserver.verify.stopped import read_control_file
from walcore._native import Reader
from walproxy.wire.errors import MalformedInput
from walproxy.wire.lsn import Lsn, parse_lsn

_PAGE_BYTES = 8192
_UNREADABLE_SHOWN_MAX = 20
_FORK_NAMES = {number: name for name, number in FORK_NUMBERS.items()}

ForkFile = tuple[int, int, int, int, str]
"""Tablespace, database, relfilenode, fork number, path of the first file."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was put into a data directory. ``unreadable``: pages that are zeros there, and why."""

    lsn: str
    forks: int
    pages: int
    elapsed_s: float
    unreadable: tuple[str, ...]


def command(
    pgdata: Annotated[Path, typer.Argument(help="Data directory of a server that was shut down.")],
    *,
    config: Annotated[Path | None, typer.Option(help="Configuration of the pageserver.")] = None,
    lsn: Annotated[
        str | None, typer.Option(help="Pages as of then; default: the directory's own shutdown checkpoint.")
    ] = None,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not make the files durable.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Overwrite the relation files of a stopped server with the pages that the pageserver rebuilds.

    Main forks, visibility maps and init forks; all else in the directory stays as it is, and must be of that LSN for
    a server to start on it. Work on a copy. The pageserver must not be running.

    Exit codes: 0 written, 2 a page could not be rebuilt and is zeros, 1 the directory does not fit, 5 it is of
    another cluster.
    """
    log_to_stderr()
    settings = load_settings(config)
    layout = open_layout(settings.data_dir)
    limits = LayerLimits(settings.layer_wal_bytes_max, settings.layer_open_bytes_max)
    try:
        written = write_data_dir(layout, limits, pgdata, lsn=_lsn(lsn), is_synced=not no_sync)
    finally:
        layout.close()
    if as_json:
        shown = {name: getattr(written, name) for name in Written.__slots__}
        typer.echo(json.dumps(shown))
    else:
        for line in written.unreadable[:_UNREADABLE_SHOWN_MAX]:
            typer.echo(f"UNREADABLE {line}")
        typer.echo(
            f"{written.pages:,} pages of {written.forks:,} forks as of {written.lsn} in {written.elapsed_s:.1f} s, "
            f"{len(written.unreadable):,} unreadable"
        )
    raise typer.Exit(ExitCode.RUNTIME if written.unreadable else ExitCode.STOPPED)


def write_data_dir(
    layout: Layout, limits: LayerLimits, pgdata: Path, *, lsn: Lsn | None, is_synced: bool
) -> Written:
    """Write every fork as of an LSN; as of the directory's shutdown checkpoint, if none is given.

    Raises:
        DirectoryUnsuitable: no stopped server's data directory, or it lacks a database's folder.
        Refused: it is of another cluster.
        LsnTooOld, LsnNotReached: the pageserver does not have that LSN.
        OSError: a file cannot be written.
    """
    started_s = time.monotonic()
    control = read_control_file(pgdata)
    manifest = read_manifest(layout.root)
    if manifest is None:
        raise DataDamaged(
            "the pageserver has no pages: it has not taken its base backup", data_dir=layout.root
        )
    if control.system_id != manifest.system_id:
        raise Refused(
            "the directory is of another cluster", pgdata=control.system_id, pageserver=manifest.system_id
        )
    timeline = Timeline.open(layout, manifest, limits)
    try:
        at_lsn = timeline.read_lsn(control.checkpoint_lsn if lsn is None else lsn)
        timeline.check_readable(at_lsn)
        if at_lsn > timeline.ingested_lsn:
            raise LsnNotReached(
                "the pageserver has no wal up to there: let it run until it has",
                lsn=at_lsn,
                ingested_lsn=timeline.ingested_lsn,
            )
        forks, pages, unreadable = _write(
            timeline.reader, manifest, pgdata, at_lsn, checksums=control.data_checksums, is_synced=is_synced
        )
    finally:
        timeline.close()
    return Written(str(at_lsn), forks, pages, time.monotonic() - started_s, tuple(unreadable))


def fork_files(reader: Reader, manifest: Manifest, pgdata: Path, lsn: Lsn) -> list[ForkFile]:
    """Every fork that exists at an LSN, with the path of its first file.

    Raises:
        DirectoryUnsuitable: the folder of a database is not there.
    """
    tablespace_folder = f"PG_{manifest.major}_{manifest.catalog_version}"
    found = []
    for spc, db, rel, fork, _ in reader.relations(lsn):
        folder = pgdata / folder_path(spc, db, tablespace_folder=tablespace_folder)
        if not folder.is_dir():
            raise DirectoryUnsuitable("the directory is not as of that lsn: a folder is missing", path=folder)
        found.append((spc, db, rel, fork, str(folder / file_name(rel, _FORK_NAMES[fork], 0))))
    return found


def _write(
    reader: Reader, manifest: Manifest, pgdata: Path, lsn: Lsn, *, checksums: bool, is_synced: bool
) -> tuple[int, int, list[str]]:
    forks = fork_files(reader, manifest, pgdata, lsn)
    paths = [Path(path) for *_, path in forks]
    blocks_before = [_blocks(path) for path in paths]
    pages, unreadable = reader.write_files(forks, lsn, checksums=checksums, sync=is_synced)
    for (*_, fork, _), path, blocks in zip(forks, paths, blocks_before, strict=True):
        # A free space map may name blocks that are no more. Without one the server makes it anew.
        if fork == 0 and _blocks(path) < blocks:
            for stale in _segments(path.with_name(path.name + "_fsm")):
                stale.unlink()
    if os.geteuid() == 0:
        owner = pgdata.stat()
        for path in (file for first in paths for file in _segments(first)):
            os.chown(path, owner.st_uid, owner.st_gid)
    if is_synced:
        for folder in {path.parent for path in paths}:
            sync_dir(folder)
    return len(forks), pages, [f"{key}: {error}" for key, error in unreadable]


def _lsn(text: str | None) -> Lsn | None:
    try:
        return None if text is None else parse_lsn(text)
    except MalformedInput as error:
        raise ConfigInvalid("not an lsn", lsn=text) from error


def _segments(first: Path) -> Iterator[Path]:
    """The files of a fork that are there."""
    path, number = first, 0
    while path.exists():
        yield path
        number += 1
        path = first.with_name(f"{first.name}.{number}")


def _blocks(first: Path) -> int:
    return sum(path.stat().st_size for path in _segments(first)) // _PAGE_BYTES
