"""Where the WAL is that a command line of pg_waldump means, and what part of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from walproxy.inspect.waldump import images
from walproxy.inspect.waldump.directory import Directory, any_segment, segment_of
from walproxy.inspect.waldump.ended import BadArgument, Fatal
from walproxy.inspect.waldump.options import Options
from walproxy.inspect.waldump.words import Words
from walproxy.wire.lsn import Lsn, parse_segment_name, segment_start

_CONNINFO: Final = re.compile(r"\w+\s*=|postgres(ql)?://")


class Wal(Protocol):
    """Segments of one timeline."""

    tli: int
    segment_size: int
    words: Words

    def name(self, lsn: int) -> str:
        """Name of the segment that holds a position."""

    def has(self, lsn: int) -> bool:
        """Whether that segment is there."""

    def read(self, lsn: int, length: int) -> bytes:
        """Bytes of one segment; fewer where it ends. Raises Fatal."""

    def batch(self, lsn: int, bytes_max: int) -> tuple[Lsn, list[str | bytes]]:
        """Start of the segment that holds ``lsn``; it and those behind it, as bytes or paths."""

    def refresh(self) -> None:
        """Look for what came meanwhile."""


@dataclass(frozen=True, slots=True)
class Target:
    """WAL from ``start_lsn`` to ``end_lsn``; 0: to where it ends."""

    wal: Wal
    start_lsn: Lsn
    end_lsn: Lsn


@contextmanager
def locate(options: Options, environment: Mapping[str, str]) -> Iterator[Target]:
    """Find what is meant. More than pg_waldump, takes a folder or a server's conninfo as the first argument.

    Raises:
        BadArgument, Fatal
    """
    if options.path is not None and (refusal := _refusal(Path(options.path))):
        raise BadArgument(f'could not open directory "{options.path}": {refusal}')
    if options.save_full_page is not None:
        images.prepare(options.save_full_page)
    first = options.files[0] if options.files else None
    if first is not None and _CONNINFO.match(first) and not Path(first).exists():
        # Connections need much that files do not.
        from walproxy.inspect.waldump.server import connect  # noqa: PLC0415

        with connect(first, options) as target:
            yield target
    elif first is not None and Path(first).is_dir():
        yield _of_folder(Path(first), options)
    elif first is not None:
        yield _of_files(options, environment)
    else:
        folder, segment = _search(_places(options.path, environment), None)
        tli = options.timeline or 1
        directory = Directory(folder, tli, segment)
        if not options.start_lsn:
            raise BadArgument("no start WAL location given")
        yield Target(directory, Lsn(options.start_lsn), Lsn(options.end_lsn))


def _of_folder(folder: Path, options: Options) -> Target:
    """All of a folder, from its first segment on; the newest timeline unless one is named."""
    folder, segment = _search([folder, folder / "pg_wal"], None)
    found = (segment_of(path.name) for path in folder.iterdir())
    directory = Directory(folder, options.timeline or max(tli for _, tli in filter(None, found)), segment)
    start = options.start_lsn or directory.first_lsn()
    if start is None:
        raise Fatal("could not find any WAL file")
    return Target(directory, Lsn(start), Lsn(options.end_lsn))


def _of_files(options: Options, environment: Mapping[str, str]) -> Target:
    """What lies between two segment files."""
    start_file, end_file = Path(options.files[0]), Path(options.files[-1])
    places = _places(options.path, environment)
    if options.path is None and "/" in options.files[0]:
        named = options.files[0].rpartition("/")[0]
        if refusal := _refusal(Path(named or "/")):
            raise Fatal(f'could not open directory "{named}": {refusal}')
        places = [Path(named or "/"), Path(named or "/") / "pg_wal"]
    folder, name = _search(places, start_file.name)
    # As in pg_waldump, the file named last has the last word on the timeline.
    last = segment_of(end_file.name)
    directory = Directory(folder, last[1] if last else 0, name)
    size = directory.segment_size
    segment = parse_segment_name(name, size)[1]
    start, end = Lsn(options.start_lsn or segment), Lsn(options.end_lsn)
    if segment_start(start, size) != segment:
        raise BadArgument(f'start WAL location {start} is not inside file "{start_file.name}"')
    if len(options.files) > 1:
        if last is None or not directory.has(parse_segment_name(last[0], size)[1]):
            raise Fatal(f'could not open file "{end_file.name}"')
        end_segment = parse_segment_name(last[0], size)[1]
        if end_segment < segment:
            raise Fatal(f"ENDSEG {options.files[1]} is before STARTSEG {options.files[0]}")
        segment = end_segment
    end = end or Lsn(segment + size)
    if segment_start(end, size) != segment and end != segment + size:
        raise BadArgument(f'end WAL location {end} is not inside file "{options.files[-1]}"')
    return Target(directory, start, end)


def _places(path: str | None, environment: Mapping[str, str]) -> list[Path]:
    """Where pg_waldump looks. Source: ``identify_target_directory``."""
    if path is not None:
        return [Path(path), Path(path) / "pg_wal"]
    data = environment.get("PGDATA")
    return [Path(), Path("pg_wal"), *([Path(data) / "pg_wal"] if data else [])]


def _search(places: Sequence[Path], file: str | None) -> tuple[Path, str]:
    """The first place that has the file, or any segment; and the segment's name."""
    for folder in places:
        if file is None:
            if (segment := any_segment(folder)) is not None:
                return folder, segment
        elif (segment := _held(folder, file)) is not None:
            return folder, segment
    raise Fatal("could not find any WAL file" if file is None else f'could not locate WAL file "{file}"')


def _held(folder: Path, file: str) -> str | None:
    """Name of the segment in a file; a name without what the file's archive added to it will do."""
    found = segment_of(file)
    if found is None or not folder.is_dir():
        return None
    if (folder / file).is_file() or any(
        (other := segment_of(path.name)) and other[0] == file for path in folder.iterdir()
    ):
        return found[0]
    return None


def _refusal(folder: Path) -> str | None:
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        return error.strerror
    return None
