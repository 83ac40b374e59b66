"""The beginning of a connection, packet by packet."""

import struct
from collections.abc import Sequence

import pytest

from walproxy.wire.errors import RemoteProtocolError, SqlError
from walproxy.wire.frames import FrameBuffer
from walproxy.wire.handshake import Cancel, Startup, accept, handshake

SSL = struct.pack("!I", 80_877_103)
GSSENC = struct.pack("!I", 80_877_104)


def startup(version: int = 196_608, **parameters: str) -> bytes:
    pairs = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
    return struct.pack("!I", version) + pairs + b"\0"


def shake(*packets: bytes) -> tuple[list[bytes], Startup | Cancel]:
    """Replies, and what it ended with."""
    steps = handshake()
    replies = [next(steps)]
    try:
        for packet in packets:
            replies.append(steps.send(packet))  # noqa: PERF401 - what came before the end is kept
    except StopIteration as end:
        return replies[1:], end.value
    raise AssertionError("not over yet")


def test_a_plain_start() -> None:
    replies, end = shake(startup(user="u", database="d", replication="true", application_name="a"))

    assert isinstance(end, Startup)
    assert replies == []
    assert (end.parameters["user"], end.is_replication, end.application_name) == ("u", True, "a")
    assert accept(end) == b"R\0\0\0\x08\0\0\0\0"


@pytest.mark.parametrize("asked", [[SSL], [GSSENC], [SSL, GSSENC], [GSSENC, SSL]])
def test_encryption_is_declined_and_the_client_goes_on(asked: Sequence[bytes]) -> None:
    replies, end = shake(*asked, startup(user="u"))

    assert replies == [b"N"] * len(asked)
    assert isinstance(end, Startup)


@pytest.mark.parametrize("asked", [[SSL, SSL], [GSSENC, SSL, GSSENC]])
def test_encryption_is_declined_only_once(asked: Sequence[bytes]) -> None:
    with pytest.raises(RemoteProtocolError, match="twice"):
        shake(*asked, startup(user="u"))


@pytest.mark.parametrize(
    ("version", "options", "answer"),
    [
        (0x0003_0000, {}, b""),
        (0x0003_0002, {}, b""),
        (0x0003_270F, {"_pq_.test": "1"}, b"v\0\0\0\x16\0\3\0\2\0\0\0\1_pq_.test\0"),
        (0x0003_0003, {}, b"v\0\0\0\x0c\0\3\0\2\0\0\0\0"),
        (0x0003_0000, {"_pq_.a": "x"}, b"v\0\0\0\x13\0\3\0\0\0\0\0\1_pq_.a\0"),
    ],
)
def test_a_version_that_is_too_new_is_negotiated(
    version: int, options: dict[str, str], answer: bytes
) -> None:
    _, end = shake(startup(version, user="u", **options))

    assert isinstance(end, Startup)
    assert accept(end) == answer + b"R\0\0\0\x08\0\0\0\0"
    assert end.cancel_key_bytes == (4 if version == 0x0003_0000 else 32)


@pytest.mark.parametrize("version", [0x0002_0000, 0x0004_0000, 0])
def test_another_major_version_is_refused(version: int) -> None:
    with pytest.raises(SqlError, match="unsupported frontend protocol") as caught:
        shake(startup(version, user="u"))
    assert (caught.value.sqlstate, caught.value.fatal) == ("0A000", True)


def test_a_user_must_be_named() -> None:
    with pytest.raises(SqlError, match="no PostgreSQL user name"):
        shake(startup(database="d"))


@pytest.mark.parametrize("packet", [startup(user="u")[:-1], startup(user="u") + b"x", startup() + b"\0"])
def test_a_startup_packet_that_is_not_whole_is_refused(packet: bytes) -> None:
    with pytest.raises((RemoteProtocolError, SqlError)):
        shake(packet)


def test_a_cancel_request_names_its_session() -> None:
    assert shake(struct.pack("!II4s", 80_877_102, 7, b"key!")) == ([], Cancel(7, b"key!"))


@pytest.mark.parametrize("length", [0, 7, 10_001, 0x4745_5420])
def test_an_impossible_packet_length_is_refused(length: int) -> None:
    buffer = FrameBuffer(length_max=100)
    buffer.feed(struct.pack("!I", length) + bytes(20))

    with pytest.raises(RemoteProtocolError, match="invalid length of startup packet"):
        buffer.next_untagged(length_max=10_000)


def test_a_packet_comes_out_whole_however_it_came_in() -> None:
    packet = startup(user="u")
    wire = struct.pack("!I", 4 + len(packet)) + packet
    buffer = FrameBuffer(length_max=100)

    for byte in wire[:-1]:
        buffer.feed(bytes([byte]))
        assert buffer.next_untagged(length_max=10_000) is None
    buffer.feed(wire[-1:] + b"Q")
    assert buffer.next_untagged(length_max=10_000) == packet
