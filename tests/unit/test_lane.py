"""The native lane: what it takes, what it hands over, and that it says nothing before it is durable."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest.mock import Mock

import pytest

from tests.synthetic_wal import WalWriter
from walcore._native import FollowLane, WalScanner
from walproxy.acceptor_lane import AcceptorLane, Lendable
from walproxy.lane import LaneSelector
from walproxy.opening import NativeScanner
from walproxy.ports import LentFile, WalStore
from walproxy.quorum.acceptor import SteadyLog
from walproxy.quorum.messages import (
    PROTOCOL_VERSION,
    Append,
    AppendReply,
    Feedback,
    SlotHorizon,
    decode,
    encode,
    reply_needs,
)
from walproxy.quorum.state import Cluster
from walproxy.wire.frames import FrameBuffer
from walproxy.wire.lsn import Lsn

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)
REPLY = AppendReply(1, 5, START, START, START, Feedback(xmin=7), (SlotHorizon("shop", START),))


@dataclass
class Bench:
    """A lane between a proposer's socket and a file, and an event loop that can be woken."""

    lane: FollowLane
    proposer: socket.socket
    wake: socket.socket
    file: Path
    wal: WalWriter

    def says(self, *messages: Append) -> None:
        self.proposer.sendall(b"".join(copy_data(encode(message)) for message in messages))

    def run(self) -> bool:
        """Until nothing more comes."""
        return self.lane.run(0.02, False)

    def replies(self) -> list[AppendReply]:
        frames = FrameBuffer(length_max=1 << 20)
        try:
            frames.feed(self.proposer.recv(1 << 20))
        except BlockingIOError:
            return []
        found = []
        while (frame := frames.next_frame()) is not None:
            message = decode(frame.body)
            assert isinstance(message, AppendReply)
            found.append(message)
        return found


def copy_data(payload: bytes) -> bytes:
    return b"d" + (4 + len(payload)).to_bytes(4) + payload


def append(lsn: int, wal: bytes = b"", **changes: Any) -> Append:
    message = Append(1, 5, 1, Lsn(lsn), Lsn(lsn), START, wal)
    return replace(message, **changes) if changes else message


@pytest.fixture
def wal() -> WalWriter:
    writer = WalWriter(START, segment_size=SEGMENT)
    for number in range(8):
        writer.record(b"r" * (100 + number))
    return writer


@pytest.fixture
def bench(tmp_path: Path, wal: WalWriter) -> Iterator[Bench]:
    file = tmp_path / "segment"
    file.write_bytes(bytes(SEGMENT))
    ours, proposer = socket.socketpair()
    loop, wake = socket.socketpair()
    for one in (ours, proposer):
        one.setblocking(False)
    fd = os.open(file, os.O_RDWR)
    lane = FollowLane(
        event_loop=loop.fileno(),
        socket=ours.fileno(),
        begun=b"",
        file=fd,
        file_start_lsn=START,
        scanner=WalScanner(START, segment_size=SEGMENT, system_id=wal.system_id),
        version=PROTOCOL_VERSION,
        generation=1,
        term=5,
        tli=1,
        write_lsn=START,
        flush_lsn=START,
        room_end_lsn=START + SEGMENT - 1,
        commit_lsn=START,
        needs=reply_needs(REPLY),
    )
    os.close(fd)
    ours.close()  # The lane has its own.
    yield Bench(lane, proposer, wake, file, wal)
    for one in (proposer, loop, wake):
        one.close()


def test_wal_is_written_and_the_reply_names_the_end_of_its_whole_records(bench: Bench) -> None:
    wal = bench.wal
    cut = wal.ends[2] + 20
    bench.says(append(START, wal.between(START, cut)))

    assert bench.run()
    assert bench.replies() == [replace(REPLY, flush_lsn=wal.ends[2], write_lsn=Lsn(cut))]
    assert bench.file.read_bytes()[: cut - START] == wal.between(START, cut)

    bench.says(append(cut, wal.between(cut, wal.end_lsn), commit_lsn=wal.ends[2], horizon_lsn=wal.ends[0]))
    assert bench.run()
    assert bench.replies() == [replace(REPLY, flush_lsn=wal.end_lsn, write_lsn=wal.end_lsn)]
    assert bench.lane.positions == (wal.end_lsn, wal.end_lsn, Lsn(wal.prev_lsn), wal.ends[2], wal.ends[0])
    assert (bench.lane.heard, bench.lane.rest()) == (2, b"")


def test_all_that_is_here_gets_one_reply(bench: Bench) -> None:
    wal = bench.wal
    ends = [START, *wal.ends]
    bench.says(*(append(lsn, wal.between(lsn, end)) for lsn, end in pairwise(ends)))

    assert bench.run()
    assert [reply.flush_lsn for reply in bench.replies()] == [wal.end_lsn]


@pytest.mark.parametrize("step", [1, 7, 48, 300])
def test_bytes_may_come_in_any_pieces(bench: Bench, step: int) -> None:
    wire = copy_data(encode(append(START, bench.wal.between(START, bench.wal.end_lsn))))
    for at in range(0, len(wire), step):
        bench.proposer.sendall(wire[at : at + step])
        assert bench.lane.run(0.0001, False)

    assert bench.run()
    assert bench.lane.positions[:2] == (bench.wal.end_lsn, bench.wal.end_lsn)
    assert len(bench.replies()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"generation": 2},
        {"term": 4},
        {"term": 6},
        {"tli": 2},
        {"start_lsn": START + 8},
        {"start_lsn": START - 8},
    ],
)
def test_what_is_not_steady_is_handed_over_untouched(bench: Bench, other: dict[str, int]) -> None:
    message = append(START, bench.wal.between(START, bench.wal.ends[0]), **other)
    bench.says(message)

    assert not bench.run()
    assert bench.lane.rest() == copy_data(encode(message))
    assert bench.lane.heard == 0
    assert bench.replies() == []
    assert not bench.file.read_bytes().strip(b"\0")


def test_what_comes_before_is_answered_and_what_comes_after_stays_in_order(bench: Bench) -> None:
    wal, first = bench.wal, bench.wal.ends[0]
    heartbeat, more = append(first), append(first, wal.between(first, wal.end_lsn))
    bench.says(append(START, wal.between(START, first)), heartbeat, more)

    assert not bench.run()
    assert [reply.flush_lsn for reply in bench.replies()] == [first]
    assert bench.lane.rest() == copy_data(encode(heartbeat)) + copy_data(encode(more))


def test_the_byte_that_fills_the_segment_is_not_taken(bench: Bench) -> None:
    wal = bench.wal
    wal.fill(START + SEGMENT)
    all_but_one = START + SEGMENT - 1
    for lsn in range(START, all_but_one, 1 << 17):
        end = min(lsn + (1 << 17), all_but_one)
        bench.says(append(lsn, wal.between(lsn, end)))
        assert bench.run()
    last = append(all_but_one, wal.between(all_but_one, START + SEGMENT))
    bench.says(last)

    assert not bench.run()
    assert bench.lane.rest() == copy_data(encode(last))
    assert bench.lane.positions[0] == all_but_one


def test_damaged_wal_is_neither_written_nor_answered_and_nothing_after_it(bench: Bench) -> None:
    wal, good = bench.wal, bench.wal.ends[1]
    bad = bytearray(wal.between(good, wal.ends[2]))
    bad[40] ^= 1
    bench.says(append(START, wal.between(START, good)), append(good, bytes(bad)))

    assert not bench.run()
    assert [reply.flush_lsn for reply in bench.replies()] == [good]
    assert bench.lane.damage is not None
    assert not bench.file.read_bytes()[good - START :].strip(b"\0")
    bench.says(append(good, wal.between(good, wal.ends[2])))
    assert not bench.run()
    assert bench.replies() == []


def test_no_record_of_an_append_with_damaged_wal_counts(bench: Bench) -> None:
    """Not even the whole ones before the damage: nothing of such an Append is written."""
    wal, good = bench.wal, bench.wal.ends[1]
    bad = bytearray(wal.between(good, wal.ends[3]))
    bad[wal.ends[2] - good + 40] ^= 1
    bench.says(append(START, wal.between(START, good)), append(good, bytes(bad)))

    assert not bench.run()
    assert [(reply.flush_lsn, reply.write_lsn) for reply in bench.replies()] == [(good, good)]
    assert bench.lane.positions[:3] == (good, good, wal.ends[0])


def test_a_sync_that_fails_is_raised_and_nothing_is_answered(tmp_path: Path, wal: WalWriter) -> None:
    ours, proposer = socket.socketpair()
    loop, wake = socket.socketpair()
    ours.setblocking(False)
    proposer.setblocking(False)
    read_only = tmp_path / "segment"
    read_only.write_bytes(bytes(SEGMENT))
    fd = os.open(read_only, os.O_RDONLY)
    try:
        lane = FollowLane(
            event_loop=loop.fileno(), socket=ours.fileno(), begun=b"", file=fd, file_start_lsn=START,
            scanner=WalScanner(START, segment_size=SEGMENT), version=PROTOCOL_VERSION,
            generation=1, term=5, tli=1, write_lsn=START, flush_lsn=START, room_end_lsn=START + SEGMENT - 1,
            commit_lsn=START, needs=b"",
        )  # fmt: skip
        proposer.sendall(copy_data(encode(append(START, wal.between(START, wal.end_lsn)))))
        with pytest.raises(OSError, match="Bad file descriptor"):
            lane.run(1.0, False)
        with pytest.raises(BlockingIOError):
            proposer.recv(1)
    finally:
        os.close(fd)
        for one in (ours, proposer, loop, wake):
            one.close()


def test_hostile_bytes_end_in_a_hand_over(bench: Bench) -> None:
    """Anything at all: no panic, no wait, nothing taken that is not steady."""
    rng = Random(7)
    good = copy_data(encode(append(START, bench.wal.between(START, bench.wal.end_lsn))))
    for _ in range(300):
        wire = bytearray(good[: rng.randrange(1, len(good))])
        for _ in range(rng.randrange(1, 4)):
            wire[rng.randrange(min(len(wire), 60))] = rng.randrange(256)
        ours, proposer = socket.socketpair()
        ours.setblocking(False)
        fd = os.open(bench.file, os.O_RDWR)
        lane = FollowLane(
            event_loop=bench.wake.fileno(), socket=ours.fileno(), begun=b"", file=fd, file_start_lsn=START,
            scanner=WalScanner(START, segment_size=SEGMENT), version=PROTOCOL_VERSION,
            generation=1, term=5, tli=1, write_lsn=START, flush_lsn=START, room_end_lsn=START + SEGMENT - 1,
            commit_lsn=START, needs=b"",
        )  # fmt: skip
        proposer.sendall(wire)
        proposer.shutdown(socket.SHUT_WR)
        assert not lane.run(5.0, False)
        assert lane.positions[0] - START <= len(wire)
        os.close(fd)
        ours.close()
        proposer.close()


def test_the_event_loop_ends_the_wait(bench: Bench) -> None:
    bench.wake.send(b"x")
    assert bench.lane.run(None, False)


def test_a_commit_ends_the_wait_for_who_waits_for_one(bench: Bench) -> None:
    wal = bench.wal
    bench.says(append(START, wal.between(START, wal.end_lsn), commit_lsn=wal.ends[0]))
    assert bench.lane.run(None, True)


def test_a_proposer_that_has_hung_up_is_handed_over(bench: Bench) -> None:
    bench.proposer.close()
    assert not bench.lane.run(5.0, False)


class StillStream:
    """A stream at rest, which can be lent."""

    def __init__(self, socket: int) -> None:
        self.socket = socket
        self.taken_back: list[tuple[bytes, bytes]] = []

    def lend(self) -> tuple[int, bytes]:
        return self.socket, b"begun"

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        self.taken_back.append((rest, unsent))


def test_without_descriptors_nothing_is_lent_and_nothing_is_lost(tmp_path: Path) -> None:
    cluster = Cluster(system_id=1, segment_size=SEGMENT, major=18)
    acceptor = Mock(
        room_end_lsn=None, generation=1, commit_lsn=START, write_lsn=START, durable_flush_lsn=START
    )
    acceptor.steady.return_value = SteadyLog(NativeScanner(START, START, cluster), 1)
    acceptor.append_reply.return_value = REPLY
    acceptor.state.term = 5
    ours, proposer = socket.socketpair()
    with ours, proposer, (tmp_path / "segment").open("w+b") as file:
        store = Mock(spec=WalStore)
        store.lend.return_value = LentFile(file.fileno(), START, Lsn(START + SEGMENT))
        stream = StillStream(ours.fileno())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                AcceptorLane.begin(acceptor, store, cast("Lendable", stream), event_loop=ours.fileno())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert stream.taken_back == [(b"begun", b"")]
        assert (
            AcceptorLane.begin(acceptor, store, cast("Lendable", stream), event_loop=ours.fileno())
            is not None
        )


def test_the_selector_lets_the_lane_run_only_when_the_loop_would_wait() -> None:
    selector = LaneSelector()
    waits: list[float | None] = []

    def wait(timeout_s: float | None) -> float | None:
        waits.append(timeout_s)
        return 0.0

    selector.wait = wait
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(asyncio.sleep(0))
        assert not [one for one in waits if one is not None and one <= 0]
        waits.clear()
        runner.run(asyncio.sleep(0.01))
        assert waits
