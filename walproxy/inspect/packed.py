"""Segment files as archives keep them: compressed, with names of their own."""

import gzip
import importlib
import re
from pathlib import Path
from typing import BinaryIO, Final, cast

from walproxy.inspect.errors import TargetUnusable, WalDamaged

# The most a segment may unpack to: the largest segment there is.
UNPACKED_BYTES_MAX: Final = 1 << 30
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LZ4: Final = b"\x04\x22\x4d\x18"
# Archivers put a checksum behind the name, or what the file was packed with, or both.
NAME: Final = re.compile(r"(([0-9A-F]{8})([0-9A-F]{16}))(\.partial)?(-[0-9a-f]{40,64})?(\.(?:gz|zst|lz4))?")


def is_packed(head: bytes) -> bool:
    """Whether a file that begins like this is compressed with gzip, zstd or lz4."""
    return head.startswith((_GZIP, _ZSTD, _LZ4))


def unpack(path: Path) -> bytes:
    """Give all bytes of a compressed file.

    Raises:
        WalDamaged: it does not unpack, or to more than a segment can hold.
        OSError: it cannot be read.
        TargetUnusable: it is not compressed in a way that is known.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        try:
            unpacked = _opened(path, head, file).read(UNPACKED_BYTES_MAX + 1)
        except (ValueError, EOFError, RuntimeError, gzip.BadGzipFile) as error:
            raise WalDamaged("the file does not unpack", file=path, reason=error) from error
    if len(unpacked) > UNPACKED_BYTES_MAX:
        raise WalDamaged("the file unpacks to more than a segment", file=path)
    return unpacked


def _opened(path: Path, head: bytes, file: BinaryIO) -> BinaryIO:
    # Loaded only if needed: most of what a short command does is to start.
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD):
        zstandard = importlib.import_module("zstandard")
        return cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
    if head.startswith(_LZ4):
        return cast("BinaryIO", importlib.import_module("lz4.frame").LZ4FrameFile(file))
    raise TargetUnusable("not compressed with gzip, zstd or lz4", file=path)
