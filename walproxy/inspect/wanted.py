"""Which records to read: the options that every target shares."""

from dataclasses import dataclass

from walcore._native import WalDump, WalInspector
from walproxy.inspect.zone import local_steps


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a record must be; None demands nothing. See `walcore._native.WalInspector`."""

    rmgrs: list[int] | None = None
    xid: int | None = None
    relation: tuple[int, int, int] | None = None
    fork: int | None = None
    block: int | None = None
    full_page: bool = False
    start_lsn: int | None = None
    end_lsn: int | None = None
    limit: int | None = None

    def inspector(self, start_lsn: int, *, segment_size: int, system_id: int, shown: int) -> WalInspector:
        """One that begins at a page boundary, after ``shown`` records were shown already."""
        return WalInspector(
            start_lsn,
            segment_size=segment_size,
            system_id=system_id,
            rmgrs=self.rmgrs,
            xid=self.xid,
            relation=self.relation,
            fork=self.fork,
            block=self.block,
            full_page=self.full_page,
            from_lsn=self.start_lsn or 0,
            until_lsn=self.end_lsn,
            limit=None if self.limit is None else max(self.limit - shown, 0),
            zone=local_steps(),
        )

    def totals(self, start_lsn: int, *, segment_size: int, shown: int) -> WalDump:
        """Adds records up from ``start_lsn`` on, after ``shown`` were shown already."""
        return WalDump(
            start_lsn,
            segment_size=segment_size,
            until_lsn=self.end_lsn,
            limit=None if self.limit is None else max(self.limit - shown, 0),
            rmgrs=self.rmgrs,
            xid=self.xid,
            relation=self.relation,
            fork=self.fork,
            block=self.block,
            full_page=self.full_page,
            totals=True,
        )
