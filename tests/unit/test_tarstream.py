"""Archives as a base backup sends them."""

import io
import tarfile

import pytest

from pageserver.errors import BootstrapFailed
from pageserver.tarstream import Member, TarReader, parse_header


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(data: bytes, cut: int) -> dict[str, bytes]:
    reader = TarReader()
    found: dict[str, bytes] = {}
    name = ""
    for at in range(0, len(data), cut):
        for part in reader.feed(memoryview(data)[at : at + cut]):
            if isinstance(part, Member):
                name = part.name
                found[name] = b""
            else:
                found[name] += part
    reader.finish()
    return found


FILES = {"PG_VERSION": b"18\n", "base/": b"", "base/5/1": b"x" * 8192, "empty": b"", "odd": b"y" * 513}


@pytest.mark.parametrize("cut", [1, 7, 512, 8192, 1 << 20])
def test_members_are_the_same_however_the_stream_is_cut(cut: int) -> None:
    found = read(archive(FILES), cut)

    assert {name.rstrip("/"): content for name, content in found.items()} == {
        name.rstrip("/"): content for name, content in FILES.items()
    }


def test_every_truncation_is_noticed() -> None:
    data = archive({"a": b"1234", "b": b"5" * 600})
    end = data.rindex(b"5") // 512 * 512 + 512 + 1024

    read(data[:end], 1 << 20)
    for length in range(0, end, 13):
        with pytest.raises(BootstrapFailed):
            read(data[:length], 1 << 20)


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    header = archive({"base/5/16384": b"x" * 100})[:512]

    assert parse_header(header).size == 100
    for bit in range(512 * 8):
        bad = bytearray(header)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            assert parse_header(bytes(bad)) == parse_header(header), f"bit={bit}"
        except BootstrapFailed:
            continue


def test_a_size_beyond_octal_is_read() -> None:
    header = bytearray(archive({"a": b""})[:512])
    header[124:136] = b"\x80" + (20 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%07o " % sum(header)

    assert parse_header(bytes(header)).size == 20 << 30


def test_what_follows_the_end_is_refused() -> None:
    data = archive({"a": b""})

    with pytest.raises(BootstrapFailed, match="after its end"):
        read(data + archive({"b": b""}), 512)


def test_a_symbolic_link_says_where_it_points_to() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("pg_tblspc/16400")
        info.type, info.linkname = tarfile.SYMTYPE, "/srv/fast"
        tar.addfile(info)

    assert parse_header(buffer.getvalue()[:512]) == Member("pg_tblspc/16400", False, 0, "/srv/fast")
