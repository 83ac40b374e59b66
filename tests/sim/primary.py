"""SimPrimary: the stock primary, its crashes and promotions, and what each of its servers was told."""

from dataclasses import dataclass, field
from random import Random

from tests.sim.toywal import CLUSTER, START, ToyScanner, record
from walproxy.quorum.primary import PrimaryIdentity
from walproxy.wire.lsn import Lsn


@dataclass
class SimServer:
    """One server's WAL, from START on. It sends what it has flushed, which may end within a record."""

    tli: int = 1
    switches: tuple[tuple[int, int], ...] = ()  # (timeline left, where), oldest first.
    wal: bytearray = field(default_factory=bytearray)
    prev: int = 0
    flushed: int = START
    acknowledged: int = START

    @property
    def end(self) -> int:
        return START + len(self.wal)

    def write(self, rng: Random) -> None:
        lsn = self.end
        self.wal += record(lsn, self.prev, rng)
        self.prev = lsn

    def flush(self, rng: Random) -> None:
        self.flushed = self.end if rng.random() < 0.7 else rng.randrange(self.flushed, self.end + 1)

    def lose_unflushed(self) -> None:
        """After a crash it writes on after its last whole record on disk, and not the same as before."""
        scanner = ToyScanner(START, 0)
        scanner.feed_to_end(bytes(self.wal[: self.flushed - START]))
        del self.wal[scanner.record_end_lsn - START :]
        self.flushed, self.prev = self.end, scanner.last_record_lsn

    def history(self, tli: int) -> bytes:
        """`<tli>.history`; empty for the first timeline."""
        lines = [f"{left}\t0/{int(at):X}\tpromoted\n" for left, at in self.switches if left < tli]
        return "".join(lines).encode()

    def switch_of(self, tli: int) -> int:
        """Where it left that timeline; 0 if it is still on it."""
        return next((at for left, at in self.switches if left == tli), 0)

    def next_of(self, tli: int) -> int:
        later = [left for left, _ in self.switches if left > tli]
        return min(later, default=self.tli)

    def identity(self) -> PrimaryIdentity:
        return PrimaryIdentity(
            CLUSTER, self.tli, Lsn(self.flushed), Lsn(START + 100), "sim", self.history(self.tli)
        )


class SimPrimary:
    """Which server is the primary now. Connections belong to an incarnation and end with it."""

    def __init__(self) -> None:
        self.server = SimServer()
        self.incarnation = 1
        self.is_up = True
        self.tli_max = 1

    def crash(self) -> None:
        self.is_up = False
        self.incarnation += 1
        self.server.lose_unflushed()

    def promote(self, wal: bytes, switches: tuple[tuple[int, int], ...], tli: int) -> None:
        """Another server takes over: it has `wal` of timeline `tli`, and goes on with a timeline of its own."""
        self.tli_max += 1
        end = START + len(wal)
        self.server = SimServer(self.tli_max, (*switches, (tli, end)), bytearray(wal), 0, end)
        self.server.lose_unflushed()
        assert self.server.end == end, "a standby ends with a whole record"
        self.incarnation += 1
        self.is_up = True
