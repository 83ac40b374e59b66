"""Segments of one timeline in a folder, plain or as an archive keeps them."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from walproxy.inspect import packed
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.segment import MAGICS, PAGE_SIZE
from walproxy.inspect.waldump.ended import Fatal
from walproxy.inspect.waldump.words import Words
from walproxy.wire.lsn import Lsn, segment_name, segment_start

NEWEST: Final = Words(max(MAGICS.values()))
_LONG_HEADER: Final = struct.Struct("<HHIQIxxxxQII")
_SIZES: Final = frozenset(1 << n for n in range(20, 31))


class Directory:
    """Where segments are read from; a plain file of the very name comes before any other form of it.

    Args:
        first: a file of it, from which the segment size and the major are taken.
    """

    def __init__(self, folder: Path, tli: int, first: str) -> None:
        self.folder = folder
        self.tli = tli
        self._others: Mapping[str, str] | None = None
        self._unpacked: dict[str, bytes] = {}
        head = self._head(first)
        magic, *_, segment_size, _ = _LONG_HEADER.unpack_from(head)
        self.words = Words(MAGICS.get(magic, NEWEST.major))
        if segment_size not in _SIZES:
            raise Fatal(*self.words.segment_size(first, segment_size))
        self.segment_size: int = segment_size

    def _head(self, name: str) -> bytes:
        head = self._bytes(name, 0, PAGE_SIZE)
        if len(head) < PAGE_SIZE:
            raise Fatal(f'could not read file "{name}": read {len(head)} of {PAGE_SIZE}')
        return head

    def name(self, lsn: int) -> str:
        """Name of the segment that holds a position."""
        return segment_name(self.tli, lsn, self.segment_size)

    def has(self, lsn: int) -> bool:
        """Whether the segment that holds a position is there, in whatever form."""
        return self._form(self.name(lsn)) is not None

    def read(self, lsn: int, length: int) -> bytes:
        """Bytes of one segment from ``lsn`` on: fewer where its file ends.

        Raises:
            Fatal: the file is not there, or cannot be read.
        """
        name, offset = self.name(lsn), lsn % self.segment_size
        try:
            return self._bytes(name, offset, length)
        except FileNotFoundError as error:
            raise Fatal(f'could not find file "{name}": {error.strerror}') from error
        except OSError as error:
            where = f"could not read from file {self.words.quoted(name)}, offset {offset}"
            raise Fatal(f"{where}: {error.strerror}") from error

    def batch(self, lsn: int, bytes_max: int) -> tuple[Lsn, list[str | bytes]]:
        """Start of the segment that holds ``lsn``; then it and those behind it, for ``bytes_max`` bytes.

        Ends early where one is missing. A compressed one is given as its bytes, others as their path.
        """
        start = segment_start(lsn, self.segment_size)
        forms: list[str] = []
        for at in range(start, lsn + max(bytes_max, 1), self.segment_size):
            if (form := self._form(self.name(at))) is None:
                break
            forms.append(form)
        for gone in self._unpacked.keys() - set(forms):
            del self._unpacked[gone]
        return start, [
            self._unpack(form) if self._is_packed(form) else str(self.folder / form) for form in forms
        ]

    def first_lsn(self) -> Lsn | None:
        """Start of the first segment of the timeline."""
        per_id = 0x1_0000_0000 // self.segment_size
        names = [name for name in self._forms() if int(name[:8], 16) == self.tli]
        if not names:
            return None
        first = min(names)
        return Lsn((int(first[8:16], 16) * per_id + int(first[16:], 16)) * self.segment_size)

    def refresh(self) -> None:
        """Look again which files there are."""
        self._others = None

    def _bytes(self, name: str, offset: int, length: int) -> bytes:
        form = self._form(name) or name
        if self._is_packed(form):
            return self._unpack(form)[offset : offset + length]
        with (self.folder / form).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length)

    def _form(self, name: str) -> str | None:
        """The file that holds the segment of this name."""
        return name if (self.folder / name).is_file() else self._forms().get(name)

    def _forms(self) -> Mapping[str, str]:
        """By segment name, the best file of each: whole before partial, plain before compressed."""
        if self._others is None:
            best: dict[str, tuple[bool, bool, str]] = {}
            for name in (path.name for path in self.folder.iterdir()):
                if match := packed.NAME.fullmatch(name):
                    form = (match[4] is not None, match[6] is not None, name)
                    best[match[1]] = min(best.get(match[1], form), form)
            self._others = {name: form[-1] for name, form in best.items()}
        return self._others

    def _is_packed(self, form: str) -> bool:
        if form in self._unpacked:
            return True
        with (self.folder / form).open("rb", buffering=0) as file:
            return packed.is_packed(file.read(4))

    def _unpack(self, form: str) -> bytes:
        if form not in self._unpacked:
            try:
                self._unpacked[form] = packed.unpack(self.folder / form)
            except (WalDamaged, TargetUnusable) as error:
                raise Fatal(str(error)) from error
        return self._unpacked[form]


def segment_of(name: str) -> tuple[str, int] | None:
    """The name of the segment that a file of this name holds, and its timeline; None: none."""
    match = packed.NAME.fullmatch(name)
    return None if match is None else (match[1], int(match[2], 16))


def any_segment(folder: Path) -> str | None:
    """A segment of a folder, by name; None if there is none."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return None
    return next((found[0] for name in names if (found := segment_of(name))), None)
