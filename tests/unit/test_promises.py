"""The check of durability fails where a promise leaves before its sync returned."""

import struct
from dataclasses import replace

import pytest

from tests.e2e.promises import Node, acknowledged_too_early
from tools.strace import Call, parse
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import AppendReply, VoteReply, encode
from walproxy.quorum.state import ControlState, encode_control
from walproxy.wire.lsn import Lsn

SEGMENT = "/n/wal/000000010000000000000001.partial"
START = 0x1000000


def call(name: str, target: str, *strings: bytes, numbers: tuple[int, ...] = (), result: int = 0) -> Call:
    return Call(name, 0, 0, 0.0, target, strings, numbers, result)


def wal(offset: int, size: int) -> Call:
    return call("pwrite64", SEGMENT, b"w" * size, numbers=(size, offset), result=size)


def send(payload: bytes) -> Call:
    data = b"d" + struct.pack("!I", len(payload) + 4) + payload
    return call("sendto", "TCP:[a->b]", data, result=len(data))


def flushed(lsn: int) -> Call:
    return send(encode(AppendReply(1, 0, Lsn(lsn), Lsn(lsn), Lsn(0))))


NAMES = call("fsync", "/n/wal")
CREATED = (call("rename", "", b"/n/wal/spare", SEGMENT.encode()), NAMES)
SYNC = call("fdatasync", SEGMENT)


def followed(*calls: Call) -> Node:
    node = Node("n")
    node.follow(replace(made, begun=at, ended=at, end_s=float(at)) for at, made in enumerate(calls))
    return node


def test_a_flush_position_after_its_sync_is_kept() -> None:
    node = followed(*CREATED, wal(0, 100), SYNC, flushed(START + 100))

    assert node.breaches == []
    assert node.seen == {"AppendReply": 1}


@pytest.mark.parametrize(
    "calls",
    [
        (*CREATED, wal(0, 100), flushed(START + 100), SYNC),
        (*CREATED, wal(0, 100), SYNC, wal(100, 8), flushed(START + 108)),
        (*CREATED, SYNC, wal(0, 100), flushed(START + 100)),
        (CREATED[0], wal(0, 100), SYNC, flushed(START + 100), NAMES),
    ],
    ids=["no sync yet", "written since", "synced before", "name not durable"],
)
def test_a_flush_position_before_its_sync_is_a_breach(calls: tuple[Call, ...]) -> None:
    assert len(followed(*calls).breaches) == 1


def test_a_sync_that_has_begun_covers_nothing_until_it_returns() -> None:
    node = Node("n")
    before = [*CREATED, wal(0, 100)]
    calls = [replace(made, begun=at, ended=at) for at, made in enumerate(before)]
    calls += [replace(SYNC, begun=10, ended=12), replace(flushed(START + 100), begun=11, ended=11)]

    node.follow(calls)

    assert len(node.breaches) == 1


def test_a_write_during_a_sync_is_not_covered_by_it() -> None:
    node = Node("n")
    calls = [replace(made, begun=at, ended=at) for at, made in enumerate([*CREATED, wal(0, 100)])]
    calls += [replace(SYNC, begun=10, ended=12), replace(wal(100, 8), begun=11, ended=11)]
    calls += [
        replace(flushed(START + 100), begun=13, ended=13),
        replace(flushed(START + 108), begun=14, ended=14),
    ]

    node.follow(calls)

    assert len(node.breaches) == 1


def test_a_vote_needs_its_control_file() -> None:
    state = ControlState("n", b"id", Membership(1, ("n", "m"), ()), term=3, voted_for="m")
    payload = encode_control(state)
    vote = send(
        encode(VoteReply(1, 3, is_pre=False, is_granted=True, term=3, last_log_term=0, flush_lsn=Lsn(0)))
    )
    content = bytes(16) + payload + bytes(4)
    write = call("write", "/n/control.new", content, numbers=(len(content),), result=len(content))
    sync, folder = call("fsync", "/n/control.new"), call("fsync", "/n")
    rename = call("rename", "", b"/n/control.new", b"/n/control")

    assert followed(write, sync, rename, folder, vote).breaches == []
    assert len(followed(write, sync, rename, vote, folder).breaches) == 1
    assert len(followed(write, rename, folder, sync, vote).breaches) == 1
    assert len(followed(vote).breaches) == 1


def test_the_primary_is_told_only_what_a_quorum_has() -> None:
    told = send(struct.pack("!cQQQQB", b"r", START + 100, START + 100, START + 100, 0, 0))
    proposer = followed(*CREATED, wal(0, 100), SYNC, told)
    behind = followed(*CREATED, wal(0, 50), SYNC)
    level = followed(*CREATED, wal(0, 100), SYNC)

    assert acknowledged_too_early([proposer, behind, level], quorum=2) == []
    assert len(acknowledged_too_early([proposer, behind], quorum=2)) == 1


def test_calls_are_read_as_strace_prints_them() -> None:
    printed = [
        r"""7 10.5 pwrite64(3<\x2f\x66>, "\x61\x62", 2, 4096) = 2 <0.25>""",
        r"8 11.0 fdatasync(3<\x2f\x66> <unfinished ...>",
        r'7 11.1 sendto(5<TCP:[127.0.0.1:1->127.0.0.1:2]>, "\x68", 1, 0, NULL, 0) = 1 <0.1>',
        r"8 11.4 <... fdatasync resumed>) = 0 <0.4>",
        r"""7 12.0 openat(AT_FDCWD<\x2f>, "\x2f\x67", 0) = -1 ENOENT (No such file or directory) <0.1>""",
    ]

    write, sent, sync, opened = parse(printed)

    assert (write.target, write.strings, write.numbers, write.result) == ("/f", (b"ab",), (2, 4096), 2)
    assert write.end_s == 10.75
    assert (sent.target, sent.begun) == ("TCP:[127.0.0.1:1->127.0.0.1:2]", 2)
    assert (sync.target, sync.begun, sync.ended, sync.end_s) == ("/f", 1, 3, 11.4)
    assert opened.result == -1
