"""A small file that is replaced as a whole and proves that it is what was written.

| magic 8 | version 4 | length of payload 4 | payload | CRC-32C of all before 4 |        big-endian
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

from walcore._native import crc32c
from walproxy.errors import DataDamaged, Poisoned

_HEAD: Final = struct.Struct("!8sII")
_SUM: Final = struct.Struct("!I")
_TEMPORARY: Final = ".new"


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole file in place of another; after a crash it is the one or the other. Raises OSError."""
    temporary = path.with_name(path.name + _TEMPORARY)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


class SealedFile:
    """One such file. Blocking.

    Args:
        magic: eight bytes that say what it is.
        version: of the payload's form; another one is refused.
        advice: what an operator does if it is damaged; ends the message.
    """

    def __init__(self, path: Path, *, magic: bytes, version: int, advice: str) -> None:
        assert len(magic) == 8
        self.path = path
        self._magic = magic
        self._version = version
        self._advice = advice
        self._is_poisoned = False

    def load(self) -> bytes | None:
        """The payload; None if there is no file.

        Raises:
            DataDamaged: it is not what was written, or of another version of this program.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if len(content) < _HEAD.size + _SUM.size:
            raise self._damaged("it is too short", length=len(content))
        magic, version, length = _HEAD.unpack_from(content)
        if magic != self._magic:
            raise self._damaged("it is something else", magic=magic)
        if len(content) != _HEAD.size + length + _SUM.size:
            raise self._damaged("its length is wrong", length=len(content))
        (expected,) = _SUM.unpack(content[-_SUM.size :])
        if crc32c(content[: -_SUM.size]) != expected:
            raise self._damaged("its checksum is wrong")
        if version != self._version:
            raise self._damaged("it is of another version of this program", version=version)
        return content[_HEAD.size : -_SUM.size]

    def save(self, payload: bytes) -> None:
        """Replace the payload. Durable when it returns.

        Raises:
            Poisoned: it could not be written or synced; also ever after.
        """
        if self._is_poisoned:
            raise Poisoned("an earlier write failed", path=self.path)
        content = _HEAD.pack(self._magic, self._version, len(payload)) + payload
        try:
            replace_file(self.path, content + _SUM.pack(crc32c(content)))
        except OSError as error:
            self._is_poisoned = True
            with contextlib.suppress(OSError):
                self.path.with_name(self.path.name + _TEMPORARY).unlink()
            raise Poisoned("cannot write", path=self.path, error=error) from error

    def _damaged(self, what: str, **facts: object) -> DataDamaged:
        return DataDamaged(f"{self.path} is damaged: {what}; {self._advice}", **facts)
