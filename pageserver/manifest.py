"""The manifest: what a timeline is made of. One small file, replaced as a whole.

```text
offset  0       8         12       16          20
        | magic | version | length | crc32c    | body: JSON, `length` bytes |
```

Little-endian. The checksum covers magic, version and length, and then the body.
"""

import os
import struct
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pageserver.errors import DataDamaged, Poisoned
from walcore._native import crc32c

NAME: Final = "manifest"
_MAGIC = b"PGSVRMAN"
_VERSION = 2
_HEAD = struct.Struct("<8sII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A layer file: its name under `layers/`, the WAL it covers, and how often its content was merged."""

    name: str
    start_lsn: int
    end_lsn: int
    file_bytes: int
    level: int


@dataclass(frozen=True, slots=True)
class StateEntry:
    """The file with the state of ingest as of the manifest's end: sizes, counters, settings."""

    name: str
    file_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class FullPageWrites:
    """The state of full_page_writes, and where in the WAL it was last seen to change."""

    is_on: bool
    lsn: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One timeline.

    Args:
        generation: who wrote it; a higher one wins.
        start_lsn: redo of the base backup begins here.
        consistency_lsn: nothing below can be read.
        end_lsn: the layers cover the WAL up to here; a record end.
        hint_steps: (from that LSN on, hint bits are WAL-logged), ascending.
    """

    generation: int
    system_id: int
    major: int
    catalog_version: int
    tli: int
    segment_size: int
    data_checksums: bool
    start_lsn: int
    consistency_lsn: int
    end_lsn: int
    layers: tuple[LayerEntry, ...]
    state: StateEntry
    hint_steps: tuple[tuple[int, bool], ...]
    full_page_writes: FullPageWrites


_BODY: Final = TypeAdapter(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of the file."""
    body = _BODY.dump_json(manifest)
    head = _HEAD.pack(_MAGIC, _VERSION, len(body))
    return head + _CRC.pack(crc32c(body, crc32c(head))) + body


def decode_manifest(data: bytes) -> Manifest:
    """Read it back.

    Raises:
        DataDamaged: it is not what was written, or a later version wrote it.
    """
    start = _HEAD.size + _CRC.size
    if len(data) < start:
        raise DataDamaged("manifest is cut short", bytes=len(data))
    magic, version, length = _HEAD.unpack_from(data)
    (stored,) = _CRC.unpack_from(data, _HEAD.size)
    body = data[start:]
    found = crc32c(body, crc32c(data[: _HEAD.size]))
    if magic != _MAGIC or len(body) != length or found != stored:
        raise DataDamaged("manifest fails its checksum", stored_crc=f"{stored:08x}", found_crc=f"{found:08x}")
    if version != _VERSION:
        raise DataDamaged("manifest is of another version of pageserver", found=version, known=_VERSION)
    try:
        return _BODY.validate_json(body)
    except ValidationError as error:
        raise DataDamaged("manifest does not hold what it should", reason=error.errors()[0]["msg"]) from error


def read_manifest(data_dir: Path) -> Manifest | None:
    """The manifest of a data directory; None if bootstrap has not come to its end there.

    Raises:
        DataDamaged: as `decode_manifest`.
    """
    try:
        data = (data_dir / NAME).read_bytes()
    except FileNotFoundError:
        return None
    return decode_manifest(data)


def replace_manifest(data_dir: Path, manifest: Manifest) -> None:
    """Make this the manifest, durably, in one step.

    Raises:
        Poisoned: the disk refused.
    """
    replace_file(data_dir / NAME, encode_manifest(manifest))


def replace_file(path: Path, data: bytes) -> None:
    """Write a whole file durably: a new one is synced, renamed into place, and the directory synced.

    Raises:
        Poisoned: the disk refused.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_dir(path.parent)
    except OSError as error:
        raise Poisoned("cannot write", path=path, reason=error.strerror) from error


def sync_dir(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
