"""Files beside the manifest: layers and the size state, their names and how they are opened and stored."""

from collections.abc import Callable
from pathlib import Path

from pageserver.errors import DataDamaged, Poisoned
from pageserver.manifest import LayerEntry, SizesEntry, replace_file, sync_dir
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


def store_sizes(directory: Path, lsn: int, sizes: bytes) -> SizesEntry:
    """Write the size state as of an LSN, durably.

    Raises:
        Poisoned: the disk refused.
    """
    name = f"{int(lsn):016X}.sizes"
    replace_file(directory / name, sizes)
    return SizesEntry(name, len(sizes), crc32c(sizes))


def load_sizes(directory: Path, entry: SizesEntry) -> bytes:
    """Read the size state that the manifest names.

    Raises:
        DataDamaged: it is missing or fails its checksum.
    """
    path = directory / entry.name
    try:
        sizes = path.read_bytes()
    except FileNotFoundError:
        raise DataDamaged("the size state is missing", path=path) from None
    if len(sizes) != entry.file_bytes or crc32c(sizes) != entry.crc:
        raise DataDamaged("the size state is damaged", path=path)
    return sizes
