"""Frames and messages: however the network cuts them, and whatever is broken in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walproxy.wire import messages
from walproxy.wire.errors import RemoteProtocolError
from walproxy.wire.frames import Frame, FrameBuffer
from walproxy.wire.messages import BACKEND, FRONTEND, Message, decode

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
oids = st.integers(0, (1 << 32) - 1)
formats = st.lists(st.integers(0, 1), max_size=4).map(tuple)
values = st.lists(st.none() | st.binary(max_size=40), max_size=5).map(tuple)
fields = st.builds(messages.Field, names, oids, st.integers(-1, 100), st.integers(0, 1))
letters = st.sampled_from("SVCMDH")

CONTENT: dict[type[Message], st.SearchStrategy[Message]] = {
    messages.Query: st.builds(messages.Query, names),
    messages.Parse: st.builds(messages.Parse, names, names, st.lists(oids, max_size=4).map(tuple)),
    messages.Bind: st.builds(messages.Bind, names, names, formats, values, formats),
    messages.Describe: st.builds(messages.Describe, st.sampled_from("SP"), names),
    messages.Close: st.builds(messages.Close, st.sampled_from("SP"), names),
    messages.Execute: st.builds(messages.Execute, names, st.integers(0, 1 << 30)),
    messages.FunctionCall: st.builds(messages.FunctionCall, st.binary(max_size=30)),
    messages.Password: st.builds(messages.Password, st.binary(max_size=30)),
    messages.CopyData: st.builds(messages.CopyData, st.binary(max_size=300)),
    messages.CopyFail: st.builds(messages.CopyFail, names),
    messages.Authentication: st.builds(messages.Authentication, st.integers(0, 12), st.binary(max_size=9)),
    messages.NegotiateProtocolVersion: st.builds(
        messages.NegotiateProtocolVersion, st.integers(0, 1 << 20), st.lists(names, max_size=3).map(tuple)
    ),
    messages.ParameterStatus: st.builds(messages.ParameterStatus, names, names),
    messages.BackendKeyData: st.builds(
        messages.BackendKeyData, st.integers(1, 1 << 30), st.binary(max_size=32)
    ),
    messages.ReadyForQuery: st.builds(messages.ReadyForQuery, st.sampled_from("ITE")),
    messages.RowDescription: st.builds(messages.RowDescription, st.lists(fields, max_size=4).map(tuple)),
    messages.ParameterDescription: st.builds(
        messages.ParameterDescription, st.lists(oids, max_size=4).map(tuple)
    ),
    messages.DataRow: st.builds(messages.DataRow, values),
    messages.CommandComplete: st.builds(messages.CommandComplete, names),
    messages.ErrorResponse: st.builds(
        messages.ErrorResponse, st.lists(st.tuples(letters, names), max_size=4).map(tuple)
    ),
    messages.NoticeResponse: st.builds(
        messages.NoticeResponse, st.lists(st.tuples(letters, names), max_size=4).map(tuple)
    ),
}


def some(kinds: dict[bytes, type[Message]]) -> st.SearchStrategy[Message]:
    return st.one_of([CONTENT.get(kind, st.builds(kind)) for kind in kinds.values()])


def check_frames(wire: bytes, expected: list[Frame]) -> None:
    for cut in (len(wire) or 1, 1, 7):
        buffer = FrameBuffer(length_max=1 << 20)
        got = []
        for at in range(0, len(wire), cut):
            buffer.feed(wire[at : at + cut])
            while (frame := buffer.next_frame()) is not None:
                got.append(frame)
        assert got == expected, f"cut={cut}"


def test_two_messages_back_to_back() -> None:
    check_frames(bytes.fromhex("64 00000006 6869" + "63 00000004"), [Frame(b"d", b"hi"), Frame(b"c", b"")])


@pytest.mark.parametrize("wire", [bytes.fromhex("64 00000003"), bytes.fromhex("64 00100001"), b"GET / HTTP"])
def test_an_impossible_length_is_the_peers_fault(wire: bytes) -> None:
    buffer = FrameBuffer(length_max=1 << 20)
    buffer.feed(wire)

    with pytest.raises(RemoteProtocolError, match="invalid message length"):
        buffer.next_frame()


@given(st.lists(some(FRONTEND), max_size=5))
def test_every_frontend_message_comes_back(said: list[Message]) -> None:
    check_frames(b"".join(m.encode() for m in said), [Frame(m.tag, m.body()) for m in said])
    assert [decode(Frame(m.tag, m.body()), FRONTEND) for m in said] == said


@given(some(BACKEND))
def test_every_backend_message_comes_back(said: Message) -> None:
    assert decode(Frame(said.tag, said.body()), BACKEND) == said


@given(some(FRONTEND) | some(BACKEND), st.data())
def test_no_bytes_do_worse_than_a_protocol_error(said: Message, data: st.DataObject) -> None:
    body = bytearray(said.body())
    if body:
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] ^= data.draw(st.integers(1, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    for kinds in (FRONTEND, BACKEND):
        for tag in {said.tag, data.draw(st.sampled_from(sorted(kinds)))}:
            try:
                decode(Frame(tag, bytes(body)), kinds)
            except RemoteProtocolError:
                continue


def test_a_body_with_bytes_left_over_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="longer than its content"):
        decode(Frame(b"S", b"x"), FRONTEND)


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid message type"):
        decode(Frame(b"~", b""), FRONTEND)


def test_the_bytes_are_those_of_the_protocol() -> None:
    """Written out by hand from the documentation."""
    parse = messages.Parse("s", "select $1", (20,))
    assert parse.encode() == b"P\0\0\0\x16s\0select $1\0\0\1\0\0\0\x14"
    bind = messages.Bind("", "s", (1,), (b"ab", None), (0,))
    assert bind.encode() == b"B\0\0\0\x1b\0s\0\0\1\0\1\0\2\0\0\0\2ab\xff\xff\xff\xff\0\1\0\0"
    assert messages.ReadyForQuery("I").encode() == b"Z\0\0\0\5I"
    row = messages.RowDescription((messages.Field("a", 25, -1),))
    assert row.encode() == b"T\0\0\0\x1a\0\1a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
    assert messages.CopyBothResponse().encode() == b"W\0\0\0\7\0\0\0"
