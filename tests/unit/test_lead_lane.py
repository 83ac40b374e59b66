"""The proposer's native lane: whom it sends what, what it calls committed, and what it leaves to the core."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.synthetic_wal import WalWriter
from walcore._native import LeadLane, WalScanner
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.messages import (
    PROTOCOL_VERSION,
    Append,
    AppendReply,
    Feedback,
    SlotHorizon,
    decode,
    encode,
    parse_needs,
    reply_needs,
)
from walproxy.wire.frames import FrameBuffer
from walproxy.wire.lsn import Lsn
from walproxy.wire.replication import Keepalive, StatusUpdate, XLogData, parse_client_message

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)
WINDOW = 4 << 20
REPLY = AppendReply(1, 5, START, START, START)


def copy_data(payload: bytes) -> bytes:
    return b"d" + (4 + len(payload)).to_bytes(4) + payload


@dataclass
class End:
    """The far end of a lent socket."""

    socket: socket.socket
    frames: FrameBuffer = field(default_factory=lambda: FrameBuffer(length_max=4 << 20))

    def says(self, *payloads: bytes) -> None:
        self.socket.sendall(b"".join(map(copy_data, payloads)))

    def replies(self, **changes: Any) -> None:
        self.says(encode(replace(REPLY, **changes)))

    def flushed(self, lsn: int) -> None:
        self.replies(flush_lsn=Lsn(lsn), write_lsn=Lsn(lsn))

    def heard(self) -> list[bytes]:
        try:
            self.frames.feed(self.socket.recv(8 << 20))
        except BlockingIOError:
            return []
        found = []
        while (frame := self.frames.next_frame()) is not None:
            assert frame.tag == b"d"
            found.append(frame.body)
        return found

    def appends(self) -> list[Append]:
        messages = [decode(payload) for payload in self.heard()]
        assert all(isinstance(message, Append) for message in messages)
        return [message for message in messages if isinstance(message, Append)]

    def reported(self) -> list[Lsn]:
        found = []
        for payload in self.heard():
            message = parse_client_message(payload)
            assert isinstance(message, StatusUpdate)
            assert message.write_lsn == message.flush_lsn == message.apply_lsn
            assert abs(message.sent_us / 1e6 + 946_684_800 - time.time()) < 60
            found.append(message.flush_lsn)
        return found


@dataclass
class World:
    """A lane, and all it speaks to: the primary, peers b and c, a file, an event loop that can be woken."""

    lane: LeadLane
    primary: End
    b: End
    c: End
    wake: socket.socket
    loop: socket.socket
    file: Path
    wal: WalWriter
    sent_lsn: int = START

    def primary_sends(self, until_lsn: int, **changes: Any) -> None:
        """The WAL from where it stopped up to there."""
        wal = XLogData(Lsn(self.sent_lsn), Lsn(until_lsn), 0, self.wal.between(self.sent_lsn, until_lsn))
        self.primary.says((replace(wal, **changes) if changes else wal).encode())
        self.sent_lsn = until_lsn

    def run(self) -> bool:
        """Until nothing more comes."""
        return self.lane.run(0.03, False)

    def close(self) -> None:
        for one in (self.primary.socket, self.b.socket, self.c.socket, self.wake, self.loop):
            one.close()


@pytest.fixture
def wal() -> WalWriter:
    writer = WalWriter(START, segment_size=SEGMENT)
    for number in range(8):
        writer.record(b"r" * (100 + number))
    return writer


def make(
    folder: Path, *, wal: WalWriter, mode: int = os.O_RDWR, next_lsn: int = START, **changes: Any
) -> World:
    file = folder / "segment"
    file.write_bytes(bytes(SEGMENT))
    pairs = [socket.socketpair() for _ in range(3)]
    loop, wake = socket.socketpair()
    for one in (end for pair in pairs for end in pair):
        one.setblocking(False)
    fd = os.open(file, mode)
    known = {
        "event_loop": loop.fileno(),
        "primary": pairs[0][0].fileno(),
        "begun": b"",
        "peers": [(pair[0].fileno(), b"", True, next_lsn, next_lsn, next_lsn, START) for pair in pairs[1:]],
        "file": fd,
        "file_start_lsn": START,
        "before": None,
        "scanner": WalScanner(START, segment_size=SEGMENT, system_id=wal.system_id),
        "version": PROTOCOL_VERSION,
        "generation": 1,
        "term": 5,
        "tli": 1,
        "write_lsn": START,
        "flush_lsn": START,
        "room_end_lsn": START + SEGMENT - 1,
        "term_start_lsn": START,
        "commit_lsn": START,
        "horizon_lsn": START,
        "reported_lsn": START,
        "primary_end_lsn": START,
        "majority": 2,
        "others": [],
        "window_bytes": WINDOW,
        "commit_delay_s": 10.0,
    }
    lane = LeadLane(**{**known, **changes})
    os.close(fd)
    for ours, _ in pairs:
        ours.close()  # The lane has its own.
    primary, b, c = (End(theirs) for _, theirs in pairs)
    return World(lane, primary, b, c, wake, loop, file, wal)


NewWorld = Callable[..., World]


@pytest.fixture
def new_world(tmp_path: Path, wal: WalWriter) -> Iterator[NewWorld]:
    """A function that makes a world: ``new_world(majority=3)``, as the lane's arguments are named."""
    made: list[World] = []

    def new(**changes: Any) -> World:
        made.append(make(tmp_path, **{"wal": wal} | changes))
        return made[-1]

    yield new
    for world in made:
        world.close()


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


def test_wal_goes_to_all_and_is_reported_once_a_majority_has_flushed_it(world: World) -> None:
    wal, cut = world.wal, world.wal.ends[2] + 20
    world.primary_sends(cut)

    assert world.run()
    expected = [Append(1, 5, 1, START, START, START, wal.between(START, cut))]
    assert world.b.appends() == world.c.appends() == expected
    assert world.file.read_bytes()[: cut - START] == wal.between(START, cut)
    assert world.primary.reported() == [], "nobody but us has it"

    world.c.flushed(wal.ends[1])
    assert world.run()
    assert world.primary.reported() == [wal.ends[1]]
    world.b.flushed(wal.ends[2])
    assert world.run()
    assert world.primary.reported() == [wal.ends[2]], "the end of our own whole records"
    world.c.replies(flush_lsn=wal.ends[2], write_lsn=Lsn(cut))
    assert world.run()
    assert world.primary.reported() == [], "known already"
    assert world.lane.positions == (cut, wal.ends[2], wal.ends[1], wal.ends[2])
    assert world.lane.primary == (cut, 1, wal.ends[2])
    assert (world.lane.appends, world.lane.rest(0), world.lane.rest(1)) == (1, b"", b"")


def test_two_peers_are_a_majority_before_our_own_disk_has_more(new_world: NewWorld, wal: WalWriter) -> None:
    world = new_world(others=[START, START], majority=3)
    world.primary_sends(wal.end_lsn)
    world.b.flushed(wal.end_lsn)
    assert world.run()
    assert world.primary.reported() == [], "two of five"
    world.c.flushed(wal.end_lsn)
    assert world.run()
    assert world.primary.reported() == [wal.end_lsn]


def test_a_peer_without_a_vote_does_not_count(new_world: NewWorld, wal: WalWriter) -> None:
    world = new_world(majority=3, others=[])
    world.primary_sends(wal.end_lsn)
    world.b.flushed(wal.end_lsn)
    assert world.run()
    assert world.primary.reported() == []


def test_nothing_below_the_start_of_the_term_is_called_committed(new_world: NewWorld, wal: WalWriter) -> None:
    world = new_world(term_start_lsn=wal.ends[3])
    world.primary_sends(wal.end_lsn)
    world.b.flushed(wal.ends[2])
    assert world.run()
    assert world.primary.reported() == []
    world.b.flushed(wal.ends[3])
    assert world.run()
    assert world.primary.reported() == [wal.ends[3]]


@pytest.mark.parametrize("step", [1, 7, 48, 300])
def test_bytes_may_come_in_any_pieces(world: World, step: int) -> None:
    wal = world.wal
    wire = copy_data(XLogData(START, wal.end_lsn, 0, wal.between(START, wal.end_lsn)).encode())
    for at in range(0, len(wire), step):
        world.primary.socket.sendall(wire[at : at + step])
        assert world.lane.run(0.0001, False)
    reply = copy_data(encode(replace(REPLY, flush_lsn=wal.end_lsn, write_lsn=wal.end_lsn)))
    for at in range(0, len(reply), step):
        world.b.socket.sendall(reply[at : at + step])
        assert world.lane.run(0.0001, False)

    assert world.run()
    assert world.primary.reported() == [wal.end_lsn]


def test_all_that_is_here_is_one_append(world: World) -> None:
    for end in world.wal.ends:
        world.primary_sends(end)

    assert world.run()
    assert [append.wal for append in world.b.appends()] == [world.wal.between(START, world.wal.end_lsn)]


def test_the_primary_is_answered_with_what_it_was_told_last(world: World) -> None:
    world.primary.says(Keepalive(Lsn(START + 900), 0, reply_requested=False).encode())
    assert world.run()
    assert world.primary.reported() == []
    world.primary.says(Keepalive(Lsn(START + 800), 0, reply_requested=True).encode())
    assert world.run()
    assert world.primary.reported() == [START]
    assert world.lane.primary == (START + 900, 2, START)


@pytest.mark.parametrize("start", [START + 8, START - 8])
def test_wal_that_stands_elsewhere_is_handed_over_untouched(world: World, start: int) -> None:
    message = XLogData(Lsn(start), Lsn(start), 0, b"elsewhere").encode()
    world.primary.says(message)

    assert not world.run()
    assert world.lane.rest(0) == copy_data(message)
    assert world.b.appends() == []
    assert world.lane.appends == 0


def test_what_comes_before_the_end_of_the_copy_is_taken(world: World) -> None:
    world.primary_sends(world.wal.ends[0])
    world.primary.socket.sendall(b"c\0\0\0\4")

    assert not world.run()
    assert world.lane.rest(0) == b"c\0\0\0\4"
    assert len(world.b.appends()) == len(world.c.appends()) == 1
    assert world.lane.positions[:2] == (world.wal.ends[0], world.wal.ends[0])


@pytest.mark.parametrize("other", [{"term": 6}, {"generation": 2}, {"flush_lsn": Lsn(0)}])
def test_another_answer_is_handed_over_and_does_not_count(world: World, other: dict[str, Any]) -> None:
    wal = world.wal
    world.primary_sends(wal.end_lsn)
    strange = encode(replace(REPLY, **{"flush_lsn": wal.end_lsn, "write_lsn": wal.end_lsn} | other))
    world.b.says(strange)

    assert not world.run()
    assert world.lane.rest(1) == copy_data(strange)
    assert (world.lane.rest(0), world.lane.rest(2)) == (b"", b"")
    assert world.primary.reported() == []


def test_who_has_hung_up_is_handed_over(world: World) -> None:
    world.c.socket.close()
    assert not world.lane.run(5.0, False)


def test_the_primary_has_hung_up(world: World) -> None:
    world.primary.socket.close()
    assert not world.lane.run(5.0, False)


def test_the_event_loop_ends_the_wait(world: World) -> None:
    world.wake.send(b"x")
    assert world.lane.run(None, False)


def test_a_commit_ends_the_wait_for_who_waits_for_one(world: World) -> None:
    world.primary_sends(world.wal.end_lsn)
    world.b.flushed(world.wal.end_lsn)
    assert world.lane.run(None, True)
    assert world.lane.positions[3] == world.wal.end_lsn


def test_damaged_wal_goes_nowhere_and_nothing_after_it(world: World) -> None:
    wal, good = world.wal, world.wal.ends[1]
    bad = bytearray(wal.between(good, wal.ends[2]))
    bad[40] ^= 1
    world.primary_sends(good)
    world.primary_sends(wal.ends[2], wal=bytes(bad))

    assert not world.run()
    assert [append.wal for append in world.b.appends()] == [wal.between(START, good)]
    assert world.lane.damage is not None
    assert not world.file.read_bytes()[good - START :].strip(b"\0")
    assert world.lane.positions[:2] == (good, good)


def test_the_byte_that_fills_the_segment_is_not_taken(world: World) -> None:
    wal = world.wal
    wal.fill(START + SEGMENT)
    all_but_one = START + SEGMENT - 1
    for lsn in range(START, all_but_one, 1 << 16):
        world.primary_sends(min(lsn + (1 << 16), all_but_one))
        assert world.run()
        assert world.b.appends()
        assert world.c.appends()
    world.primary_sends(START + SEGMENT)

    assert not world.run()
    assert world.lane.rest(0).endswith(wal.between(all_but_one, START + SEGMENT))
    assert world.lane.positions[0] == all_but_one


def test_a_sync_that_fails_is_raised_and_nothing_is_reported(new_world: NewWorld, wal: WalWriter) -> None:
    world = new_world(mode=os.O_RDONLY)
    for peer in (world.b, world.c):
        peer.flushed(wal.end_lsn)
    world.primary_sends(wal.end_lsn)
    with pytest.raises(OSError, match="Bad file descriptor"):
        world.lane.run(1.0, False)
    assert world.primary.reported() == []


def test_a_peer_that_reads_nothing_holds_up_nobody_and_gets_all_in_order_later(
    new_world: NewWorld, wal: WalWriter
) -> None:
    wal.fill(START + SEGMENT // 2)
    world = new_world()
    pieces = []
    for lsn in range(START, wal.end_lsn, 1 << 15):
        world.primary_sends(min(lsn + (1 << 15), wal.end_lsn))
        assert world.run()
        pieces += world.c.appends()
        world.c.flushed(world.sent_lsn)
    assert world.run()
    assert world.primary.reported()[-1] >= wal.ends[-2]
    assert b"".join(append.wal for append in pieces) == wal.between(START, wal.end_lsn)

    late: list[Append] = []
    for _ in range(1000):
        late += world.b.appends()
        assert world.lane.run(0.001, False)
        if late and late[-1].start_lsn + len(late[-1].wal) == wal.end_lsn:
            break
    assert [a.start_lsn for a in late] == [START, *(a.start_lsn + len(a.wal) for a in late[:-1])]
    assert b"".join(append.wal for append in late) == wal.between(START, wal.end_lsn)


def test_no_more_than_a_window_is_under_way_and_then_the_primary_has_to_wait(
    new_world: NewWorld, wal: WalWriter
) -> None:
    wal.fill(START + SEGMENT // 2)
    room = 1 << 17
    # Another Append of the largest size has to fit.
    world = new_world(window_bytes=(1 << 20) + room)
    for end in range(START + (1 << 15), START + room + (1 << 16) + 1, 1 << 15):
        world.primary_sends(end)
        assert world.lane.run(0.001, False)
        world.b.appends()
        world.c.appends()
    write_lsn = world.lane.positions[0]
    assert START + room < write_lsn <= START + room + (1 << 15)

    world.b.replies(flush_lsn=START, write_lsn=Lsn(write_lsn))
    assert world.run()
    assert world.lane.positions[0] > write_lsn, "one peer and we are a majority"


def test_a_peer_gets_what_it_lacks_of_the_segment_before(new_world: NewWorld, tmp_path: Path) -> None:
    wal = WalWriter(START - SEGMENT, segment_size=SEGMENT)
    wal.fill(START + 5000)
    older = tmp_path / "older"
    older.write_bytes(wal.between(START - SEGMENT, START))
    scanner = WalScanner(START - SEGMENT, segment_size=SEGMENT, system_id=wal.system_id)
    scanner.feed(wal.between(START - SEGMENT, START))
    fd = os.open(older, os.O_RDONLY)
    begun = START - 70_000
    world = new_world(wal=wal, scanner=scanner, before=(fd, START - SEGMENT), next_lsn=begun)
    os.close(fd)
    world.primary_sends(wal.end_lsn)

    assert world.run()
    for peer in (world.b, world.c):
        appends = peer.appends()
        assert appends[0].start_lsn == begun
        assert b"".join(a.wal for a in appends) == wal.between(begun, wal.end_lsn)


def test_peers_learn_of_a_commit_that_no_wal_carries_after_a_while(
    new_world: NewWorld, wal: WalWriter
) -> None:
    world = new_world(commit_delay_s=0.02)
    world.primary_sends(wal.end_lsn)
    assert world.run()
    world.b.appends()
    world.c.appends()
    world.b.flushed(wal.end_lsn)
    assert world.lane.run(0.2, False)

    news = [Append(1, 5, 1, wal.end_lsn, wal.end_lsn, START)]
    assert world.b.appends() == news
    assert world.c.appends() == news
    assert world.lane.run(0.1, False)
    assert world.b.appends() == [], "once"


def test_what_python_sends_goes_behind_what_waits(world: World) -> None:
    world.primary_sends(world.wal.end_lsn)
    assert world.run()
    world.lane.send(1, b"from python")
    world.lane.send(0, b"to the primary")

    assert [payload[:1] for payload in world.b.heard()] == [b"a", b"f"]
    assert world.primary.heard() == [b"to the primary"]


def test_python_learns_what_was_heard_and_sent_and_what_is_needed(world: World) -> None:
    wal = world.wal
    world.primary_sends(wal.end_lsn)
    slots, feedback = (SlotHorizon("shop", START),), Feedback(xmin=7)
    world.b.replies(flush_lsn=wal.ends[0], write_lsn=wal.ends[1], slots=slots, feedback=feedback)

    assert world.run()
    b, c = world.lane.peers()
    assert b[:4] == (wal.end_lsn, wal.ends[1], wal.ends[0], START)
    assert c[:4] == (wal.end_lsn, START, START, START)
    for passed_s in (b[4], b[5], c[5]):
        assert passed_s is not None
        assert 0 <= passed_s < 30
    assert (c[4], c[6]) == (None, None)
    assert b[6] is not None
    assert parse_needs(b[6]) == (feedback, slots)
    assert [peer[4:] for peer in world.lane.peers()] == [(None, None, None)] * 2


def test_what_a_peer_needs_is_told_the_first_time_and_when_it_changes(world: World) -> None:
    for needs, is_new in ((b"", True), (b"", False), (b"x", True), (b"x", False)):
        world.b.says(encode(REPLY)[: -len(reply_needs(REPLY))] + needs)
        assert world.run()
        assert world.lane.peers()[0][6] == (needs if is_new else None)
    for damaged in (b"", b"x", reply_needs(REPLY) + b"x"):
        with pytest.raises(MessageMalformed):
            parse_needs(damaged)


def test_a_peer_that_says_it_holds_what_was_never_sent_ends_nothing(world: World) -> None:
    world.b.replies(write_lsn=Lsn((1 << 64) - 1))
    assert world.run()
    world.primary_sends(world.wal.end_lsn)
    assert world.run()
    assert world.lane.positions[0] == world.wal.end_lsn
    assert len(world.b.appends()) == len(world.c.appends()) == 1


def test_a_primary_that_is_gone_while_there_is_no_room_is_handed_over(new_world: NewWorld) -> None:
    world = new_world(window_bytes=0)
    assert not world.lane.has_room
    world.primary.socket.close()
    assert not world.lane.run(5.0, False)


def test_what_was_counted_elsewhere_goes_with_the_next_append_and_is_never_taken_back(
    new_world: NewWorld, wal: WalWriter
) -> None:
    world = new_world(majority=3, others=[START, START])
    world.primary_sends(wal.end_lsn)
    assert world.run()
    world.b.appends()
    # A voter that Python speaks to has flushed more: with it and c, three of five hold the second record.
    world.c.flushed(wal.ends[2])
    world.lane.set_known(START + 8, wal.ends[1], wal.ends[1], [wal.ends[1], START])
    assert world.run()
    assert world.primary.reported() == []
    world.lane.set_known(START + 8, START, START, [wal.ends[0], START])
    world.b.replies(flush_lsn=wal.ends[0], write_lsn=wal.ends[0])
    assert world.run()
    assert world.primary.reported() == []
    assert world.lane.positions[3] == wal.ends[1]

    wal.record()
    world.primary_sends(wal.end_lsn)
    assert world.run()
    assert [(a.horizon_lsn, a.commit_lsn) for a in world.b.appends()] == [(START + 8, wal.ends[1])]


def test_hostile_bytes_end_in_a_hand_over(new_world: NewWorld, wal: WalWriter) -> None:
    """Anything at all, from the primary or a peer: no panic, no wait, nothing counted that nobody said."""
    rng = Random(11)
    good = (
        copy_data(XLogData(START, wal.end_lsn, 0, wal.between(START, wal.end_lsn)).encode()),
        copy_data(encode(replace(REPLY, flush_lsn=wal.end_lsn, write_lsn=wal.end_lsn))),
    )
    for number in range(200):
        world = new_world()
        whole = good[number % 2]
        wire = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randrange(1, 4)):
            wire[rng.randrange(min(len(wire), 60))] = rng.randrange(256)
        end = world.primary if number % 2 == 0 else world.b
        end.socket.sendall(wire)
        end.socket.shutdown(socket.SHUT_WR)
        assert not world.lane.run(5.0, False)
        assert world.lane.positions[0] - START <= len(wire)
        assert world.lane.positions[1] <= world.lane.positions[0]
