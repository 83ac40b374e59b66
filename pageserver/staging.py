"""The files of a base backup on their way into the first layer."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from pageserver.backupfiles import SLRU_KINDS, RelationFile, SlruFile, StateFile, classify
from pageserver.errors import BootstrapFailed
from pageserver.tarstream import Member, TarReader
from walcore._native import crc32c
from walproxy.wire.lsn import INVALID_LSN, Lsn

_PAGE_BYTES = 8192
_SEGMENT_PAGES = 131072
_SEGMENT_BYTES = _PAGE_BYTES * _SEGMENT_PAGES
_MANIFEST_BYTES_MAX = 1 << 30
_TABLESPACE = re.compile(r"pg_tblspc/(\d{1,10})/?", re.ASCII)


@dataclass(slots=True)
class Taken:
    """A file that was kept: where, and what the backup's list of files must say of it."""

    path: Path
    size: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Fork:
    """The files of one fork, in order."""

    spc: int
    db: int
    rel: int
    fork: int
    files: list[str]


class Staging:
    """Takes a base backup apart into files under one directory.

    Memory holds one piece at a time, and a line for each file. `tablespaces` says where each is linked to; one
    without a link is in place, with an empty path.

    Args:
        directory: emptied here; relations and SLRUs go below it.
        state_dir: where the small files go that are kept for good.
    """

    def __init__(self, directory: Path, state_dir: Path) -> None:
        self.start_lsn = INVALID_LSN
        self.tli = 0
        self.estimate_bytes = 0
        self.received_bytes = 0
        self.skipped_files = 0
        self._dir = directory
        self._state_dir = state_dir
        self._relations: dict[RelationFile, Taken] = {}
        self._slrus: dict[SlruFile, Taken] = {}
        self._state_names: list[str] = []
        self.tablespaces: dict[int, str] = {}
        self._by_name: dict[str, Taken] = {}
        self._prefix = ""
        self._tar: TarReader | None = None
        self._list: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._taken: Taken | None = None

    def begin(self, start_lsn: Lsn, tli: int, estimate_bytes: int) -> None:
        self.start_lsn, self.tli, self.estimate_bytes = start_lsn, tli, estimate_bytes

    def begin_archive(self, spc: int | None) -> None:
        self._end_archive()
        self._prefix = "" if spc is None else f"pg_tblspc/{spc}/"
        self._tar = TarReader()

    def begin_manifest(self) -> None:
        self._end_archive()
        self._list = bytearray()

    def data(self, piece: memoryview) -> None:
        self.received_bytes += len(piece)
        if self._list is not None:
            self._list += piece
            if len(self._list) > _MANIFEST_BYTES_MAX:
                raise BootstrapFailed("the backup's list of files is too long", bytes=len(self._list))
        elif self._tar is not None:
            for part in self._tar.feed(piece):
                if isinstance(part, Member):
                    self._begin_file(part)
                elif self._file is not None and self._taken is not None:
                    self._file.write(part)
                    self._taken.size += len(part)
                    self._taken.crc = crc32c(bytes(part), self._taken.crc)
        else:
            raise BootstrapFailed("the primary sent data outside of an archive")

    def end(self) -> None:
        """Check everything taken against the backup's own list.

        Raises:
            BootstrapFailed: a file is missing, of another size, or its checksum differs.
        """
        self._end_archive()
        if self._list is None:
            raise BootstrapFailed("the primary sent no list of files")
        check_list(bytes(self._list), self._by_name)
        self._list = None

    def forks(self) -> Iterator[Fork]:
        """Every fork, ascending; its files are removed once the next is asked for."""
        for key, group in groupby(sorted(self._relations), key=lambda f: (f.spc, f.db, f.rel, f.fork)):
            files = list(group)
            paths = [self._relations[file].path for file in files]
            counted = [str(path) for path in _counted(files, paths)]
            if counted:
                yield Fork(*key, counted)
            for path in paths:
                path.unlink()

    def slrus(self) -> Iterator[tuple[str, list[tuple[int, str]]]]:
        """Every SLRU with its files as (segment number, path), in the order of a layer."""
        for kind in SLRU_KINDS:
            files = sorted(file for file in self._slrus if file.kind == kind)
            yield kind, [(file.segment, str(self._slrus[file].path)) for file in files]

    def state_names(self) -> Sequence[str]:
        """Paths of the small files."""
        return self._state_names

    def state(self, path: str) -> bytes:
        """One of the small files.

        Raises:
            BootstrapFailed: the backup lacks it.
        """
        try:
            return (self._state_dir / path).read_bytes()
        except FileNotFoundError:
            raise BootstrapFailed("the base backup lacks a file", path=path) from None

    def sync_state(self) -> None:
        """Make the small files durable."""
        for directory, _names, files in os.walk(self._state_dir):
            for path in (directory, *(f"{directory}/{name}" for name in files)):
                fd = os.open(path, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)

    def remove(self) -> None:
        """Remove what is left of relations and SLRUs."""
        shutil.rmtree(self._dir, ignore_errors=True)

    def _begin_file(self, member: Member) -> None:
        self.close()
        if not member.is_file:
            if match := _TABLESPACE.fullmatch(self._prefix + member.name):
                self.tablespaces[int(match[1])] = member.link_target or ""
            return
        name = self._prefix + member.name
        kind = classify(name)
        if kind is None:
            self.skipped_files += 1
            return
        taken = Taken(self._place(kind))
        if name in self._by_name:
            raise BootstrapFailed("the base backup holds a file twice", name=name)
        self._by_name[name] = taken
        match kind:
            case RelationFile():
                self._relations[kind] = taken
            case SlruFile():
                self._slrus[kind] = taken
            case StateFile():
                self._state_names.append(name)
        taken.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = taken.path.open("xb", buffering=1 << 18)
        self._taken = taken

    def _place(self, kind: RelationFile | SlruFile | StateFile) -> Path:
        match kind:
            case RelationFile(spc, db, rel, fork, segment):
                return self._dir / f"{spc}" / f"{db}" / f"{rel}_{fork}.{segment}"
            case SlruFile(slru, segment):
                return self._dir / slru.replace("/", "_") / f"{segment:X}"
            case StateFile(path):
                return self._state_dir / path

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            self._file.close()
        self._file = self._taken = None

    def _end_archive(self) -> None:
        self.close()
        if self._tar is not None:
            self._tar.finish()
        self._tar = None


def check_list(text: bytes, taken: dict[str, Taken]) -> None:
    """Compare files with a backup's manifest.

    Raises:
        BootstrapFailed: the manifest is damaged, or a file is not as it says.

    Source:
        ``src/backend/backup/backup_manifest.c``: the last line is the SHA-256 of all before it.
    """
    last_line = text.rfind(b"\n", 0, len(text) - 1) + 1
    try:
        listed: dict[str, Any] = json.loads(text)
        stored = listed["Manifest-Checksum"]
        files = {entry["Path"]: entry for entry in listed["Files"] if "Path" in entry}
    except (ValueError, KeyError, TypeError) as error:
        raise BootstrapFailed("the backup's list of files cannot be read", reason=error) from error
    if hashlib.sha256(text[:last_line]).hexdigest() != stored:
        raise BootstrapFailed("the backup's list of files fails its checksum")
    for name, file in taken.items():
        entry = files.pop(name, None)
        if entry is None:
            raise BootstrapFailed("a file of the base backup is not in its list", name=name)
        crc = file.crc.to_bytes(4, "little").hex()
        if (entry["Size"], entry.get("Checksum")) != (file.size, crc):
            raise BootstrapFailed(
                "a file of the base backup is not as listed", name=name, size=file.size, crc=crc
            )
    missing = [name for name in files if classify(name) is not None]
    if missing:
        raise BootstrapFailed(
            "the base backup lacks a file of its list", name=missing[0], missing=len(missing)
        )


def _counted(files: list[RelationFile], paths: list[Path]) -> Iterator[Path]:
    """The files that count, cut to whole pages: up to the first that is missing or not full, as in Postgres.

    A copy of a relation that grows or shrinks meanwhile may hold more; WAL from the start on has their pages.
    """
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        if file.segment != number:
            return
        size = path.stat().st_size
        if size % _PAGE_BYTES:
            os.truncate(path, size - size % _PAGE_BYTES)
        yield path
        if size < _SEGMENT_BYTES:
            return
