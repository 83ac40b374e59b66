"""Files beside the manifest: layers and the state of ingest, their names and how they are opened and stored."""

from collections.abc import Callable
from pathlib import Path

from pageserver.errors import DataDamaged, Poisoned
from pageserver.manifest import LayerEntry, StateEntry, replace_file, sync_dir
from walcore import LayerCorrupt
from walcore._native import Layer, crc32c


def base_layer_name(lsn: int) -> str:
    """The layer of page images."""
    return f"{int(lsn):016X}.base"


def layer_name(start_lsn: int, end_lsn: int, level: int) -> str:
    """A layer that indexes a range of WAL."""
    return f"{int(start_lsn):016X}-{int(end_lsn):016X}-{level}.index"


def write_layer(
    directory: Path, start_lsn: int, end_lsn: int, *, level: int, write: Callable[[str], None]
) -> LayerEntry:
    """Have a layer file written, durably, under its name.

    Raises:
        Poisoned: the disk refused.
    """
    name = layer_name(start_lsn, end_lsn, level)
    path = directory / name
    temporary = path.with_name(name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        write(str(temporary))
        temporary.rename(path)
        sync_dir(directory)
        size = path.stat().st_size
    except OSError as error:
        raise Poisoned("cannot write a layer", path=path, reason=error.strerror or error) from error
    return LayerEntry(name, start_lsn, end_lsn, size, level)


def open_layer(directory: Path, entry: LayerEntry) -> Layer:
    """Open a layer that the manifest names.

    Raises:
        DataDamaged: it is missing, of another size, or fails its checksum.
    """
    path = directory / entry.name
    try:
        size = path.stat().st_size
        if size != entry.file_bytes:
            raise DataDamaged("a layer is cut short", path=path, bytes=size, expected=entry.file_bytes)
        return Layer.open(str(path))
    except FileNotFoundError:
        raise DataDamaged("a layer is missing", path=path) from None
    except LayerCorrupt as error:
        raise DataDamaged("a layer is damaged", path=path, reason=error) from error


def store_state(directory: Path, lsn: int, state: bytes) -> StateEntry:
    """Write the state of ingest as of an LSN, durably.

    Raises:
        Poisoned: the disk refused.
    """
    name = f"{int(lsn):016X}.state"
    replace_file(directory / name, state)
    return StateEntry(name, len(state), crc32c(state))


def load_state(directory: Path, entry: StateEntry) -> bytes:
    """Read the state of ingest that the manifest names.

    Raises:
        DataDamaged: it is missing or fails its checksum.
    """
    path = directory / entry.name
    try:
        state = path.read_bytes()
    except FileNotFoundError:
        raise DataDamaged("the state of ingest is missing", path=path) from None
    if len(state) != entry.file_bytes or crc32c(state) != entry.crc:
        raise DataDamaged("the state of ingest is damaged", path=path)
    return state
