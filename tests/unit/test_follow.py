"""PrimaryFollower: what a primary is told, and when. docs/quorum.md rule 16."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from walproxy.follow import PrimaryFollower
from walproxy.ports import EndOfTimeline, PrimaryWal
from walproxy.quorum.errors import PrimaryRefused
from walproxy.quorum.messages import Feedback
from walproxy.quorum.primary import PrimaryIdentity, StreamPlan, plan_stream
from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import Lsn

SEGMENT = 16 << 20
END = Lsn(0x5000100)  # Our log ends here, and all of it is committed.
BEGIN = Lsn(0x5000000)
CLUSTER = Cluster(7, SEGMENT, 18)
PRIMARY = PrimaryIdentity(CLUSTER, 1, Lsn(0x5000200), Lsn(0x4000F00), "18.1")


class Primary:
    """It says that it is ours; `wal` is what it sends from `BEGIN` on, in two pieces."""

    def __init__(self, wal: bytes) -> None:
        self.wal = wal
        self.log: list[str] = []

    async def identify(self) -> PrimaryIdentity:
        return PRIMARY

    async def start(self, at_lsn: Lsn, tli: int) -> None:
        assert (at_lsn, tli) == (BEGIN, 1)

    async def history(self, tli: int) -> bytes:
        raise AssertionError(tli)

    def report(self, write_lsn: Lsn, flush_lsn: Lsn, apply_lsn: Lsn) -> None:
        assert write_lsn == flush_lsn == apply_lsn
        self.log.append(f"told {Lsn(flush_lsn)}")

    def feedback(self, feedback: Feedback) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def pump(self, take: Callable[[PrimaryWal], None]) -> EndOfTimeline:
        half = len(self.wal) // 2
        for at, piece in ((0, self.wal[:half]), (half, self.wal[half:])):
            await asyncio.sleep(0)
            self.log.append(f"sends {len(piece)}")
            take(PrimaryWal(Lsn(BEGIN + at), piece, Lsn(BEGIN + at + len(piece))))
        raise asyncio.CancelledError


def follower(primary: Primary) -> PrimaryFollower:
    plan = plan_stream(
        PRIMARY, cluster=CLUSTER, tli=1, history=b"", local_start_lsn=Lsn(SEGMENT), end_lsn=END
    )

    def on_primary(identity: PrimaryIdentity, now_s: float) -> StreamPlan:
        assert (identity, now_s > 0) == (PRIMARY, True)
        return plan

    proposer = SimpleNamespace(
        commit_lsn=END, term=5, wants_primary=True, other_peers=[], on_primary=on_primary
    )
    acceptor = SimpleNamespace(
        room_end_lsn=None,
        write_lsn=END,
        record_end_lsn=END,
        feedback=Feedback(),
        state=SimpleNamespace(log_start_lsn=Lsn(SEGMENT)),
    )
    replica: Any = SimpleNamespace(proposer=proposer, acceptor=acceptor, is_proposing=True, name="a")

    async def written(lsn: Lsn) -> None:
        assert lsn == END

    def take(lsn: Lsn, wal: bytes) -> None:
        assert (lsn, wal) == (END, b"n" * 0x100)

    def read(lsn: Lsn, size: int) -> bytes:
        assert lsn == BEGIN
        return b"o" * size

    node: Any = SimpleNamespace(written=written, settle=lambda: None, take=take, has_room=True)
    store: Any = SimpleNamespace(read=read)
    upstream: Any = primary
    return PrimaryFollower(node, replica=replica, store=store, make_upstream=lambda: upstream)


async def test_a_primary_is_told_of_no_commit_before_its_wal_was_compared_with_ours() -> None:
    primary = Primary(b"o" * 0x40 + b"X" * 0x1C0)

    with pytest.raises(PrimaryRefused, match="diverged"):
        await follower(primary)._stream()

    assert primary.log == ["told 0/4000F00", "sends 256"]


async def test_it_is_told_as_soon_as_it_has_sent_all_of_our_log() -> None:
    primary = Primary(b"o" * 0x100 + b"n" * 0x100)

    with pytest.raises(asyncio.CancelledError):
        await follower(primary)._stream()

    assert primary.log == ["told 0/4000F00", "sends 256", "told 0/5000100", "sends 256"]
