"""A tar archive, read as it arrives."""

from collections.abc import Iterator
from dataclasses import dataclass

from pageserver.errors import BootstrapFailed

_BLOCK = 512
_REGULAR = (b"0", b"\0")
_SYMBOLIC_LINK = b"2"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry; its bytes follow, in pieces, if it is a regular file.

    Args:
        link_target: where a symbolic link points to; None for what is none.
    """

    name: str
    is_file: bool
    size: int
    link_target: str | None = None


class TarReader:
    """Bytes in, members and pieces of their content out. Holds at most one header block.

    Understands what ``BASE_BACKUP`` writes: ustar, sizes in octal or base 256, names of at most 99 bytes.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._content_left = 0
        self._padding_left = 0
        self._zero_blocks = 0

    def feed(self, data: memoryview) -> Iterator[Member | memoryview]:
        """Take the next bytes of the archive; the iterator must be run to its end before the next call.

        Raises:
            BootstrapFailed: not a tar archive.
        """
        while data:
            if self._content_left:
                piece = data[: self._content_left]
                self._content_left -= len(piece)
                data = data[len(piece) :]
                yield piece
            elif self._padding_left:
                skipped = min(self._padding_left, len(data))
                self._padding_left -= skipped
                data = data[skipped:]
            else:
                part = data[: _BLOCK - len(self._header)]
                self._header += part
                data = data[len(part) :]
                if len(self._header) == _BLOCK:
                    member = self._take_header()
                    if member is not None:
                        yield member

    def finish(self) -> None:
        """The archive ends here. Raises BootstrapFailed if it was cut short."""
        if self._content_left or self._padding_left or self._header or self._zero_blocks < 2:
            raise BootstrapFailed(
                "an archive of the base backup is cut short", content_left=self._content_left
            )

    def _take_header(self) -> Member | None:
        header = bytes(self._header)
        self._header.clear()
        if header == bytes(_BLOCK):
            self._zero_blocks += 1
            return None
        if self._zero_blocks:
            raise BootstrapFailed("an archive of the base backup goes on after its end")
        member = parse_header(header)
        self._content_left = member.size
        self._padding_left = -member.size % _BLOCK
        return member


def parse_header(header: bytes) -> Member:
    """Read one 512-byte header.

    Raises:
        BootstrapFailed: wrong magic or checksum, or a form that ``BASE_BACKUP`` does not write.

    Source:
        ``tarCreateHeader`` in ``src/port/tar.c``.
    """
    if header[257:265] not in (b"ustar\x0000", b"ustar  \x00"):
        raise BootstrapFailed("not a tar header", magic=header[257:265].hex())
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _number(header[148:156]) != total:
        raise BootstrapFailed("a tar header fails its checksum", stored=header[148:156].hex(), found=total)
    try:
        name = header[:100].split(b"\0", 1)[0].decode()
        target = header[157:257].split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise BootstrapFailed("a tar header names a file in no known encoding") from error
    if header[345] != 0 or not name:
        raise BootstrapFailed("a tar header of an unknown form", name=name)
    kind = header[156:157]
    size = _number(header[124:136])
    if kind not in _REGULAR and size:
        raise BootstrapFailed("a tar entry that is no file has content", name=name, kind=kind, size=size)
    link_target = target if kind == _SYMBOLIC_LINK else None
    return Member(name=name, is_file=kind in _REGULAR, size=size, link_target=link_target)


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise BootstrapFailed("a tar header holds a bad number", field=field.hex())
    return int(digits, 8)
