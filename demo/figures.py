"""What the demo measured, what of it is a failure, and the report."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

STALL_S_MAX = 10.0


@dataclass(slots=True)
class Figures:
    """Every figure of the report; None was not reached."""

    postgres: str = ""
    transactions_per_second: float | None = None
    longest_commit_stall_s: float | None = None
    wal_bytes_per_transaction_fpw_on: float | None = None
    wal_bytes_per_transaction_fpw_off: float | None = None
    pages_verified: int | None = None
    pages_different: int | None = None
    pages_remembered: int | None = None
    pages_remembered_different: int | None = None
    getpage_p50_us: float | None = None
    getpage_p99_us: float | None = None
    standby_lag_median_ms: float | None = None
    standby_lag_longest_ms: float | None = None
    standby_tables_different: list[str] | None = None
    commits_acknowledged: int | None = None
    commits_lost: int | None = None
    commits_lost_by_nodes: dict[str, int] = field(default_factory=dict)
    took_s: float | None = None
    errors: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """What did not hold, one sentence each."""
        checks = [
            (self.pages_different == 0, f"pages different from the primary's: {self.pages_different}"),
            ((self.pages_verified or 0) > 0, "no page was verified"),
            (
                self.pages_remembered_different == 0,
                f"pages that changed in the past: {self.pages_remembered_different}",
            ),
            ((self.pages_remembered or 0) > 0, "no page was remembered"),
            (
                self.longest_commit_stall_s is not None and self.longest_commit_stall_s < STALL_S_MAX,
                f"commits stalled {self.longest_commit_stall_s} s, at most {STALL_S_MAX:g} s allowed",
            ),
            (self.standby_tables_different == [], f"standby differs: {self.standby_tables_different}"),
            (self.commits_lost == 0, f"commits lost: {self.commits_lost_by_nodes or self.commits_lost}"),
            ((self.commits_acknowledged or 0) > 0, "no commit was acknowledged"),
        ]
        return [*self.errors, *(complaint for holds, complaint in checks if not holds)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"failures": self.failures()}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")

    def table(self) -> Table:
        """For a person."""
        table = Table("figure", "value", title=f"demo on {self.postgres}")
        rows = [
            ("transactions per second, 8 clients, synchronous commit", _number(self.transactions_per_second)),
            ("longest commit stall during the failover", _number(self.longest_commit_stall_s, "s")),
            (
                "WAL per transaction, full_page_writes on",
                _number(self.wal_bytes_per_transaction_fpw_on, "bytes"),
            ),
            (
                "WAL per transaction, full_page_writes off",
                _number(self.wal_bytes_per_transaction_fpw_off, "bytes"),
            ),
            ("pages verified against the primary", _number(self.pages_verified)),
            ("pages different", _number(self.pages_different)),
            ("pages remembered at an earlier LSN", _number(self.pages_remembered)),
            ("pages different when asked for again", _number(self.pages_remembered_different)),
            ("GetPage@LSN p50", _number(self.getpage_p50_us, "us")),
            ("GetPage@LSN p99", _number(self.getpage_p99_us, "us")),
            ("standby lag, median", _number(self.standby_lag_median_ms, "ms")),
            ("standby lag, longest (failover included)", _number(self.standby_lag_longest_ms, "ms")),
            ("standby tables different", _count(self.standby_tables_different)),
            ("commits acknowledged", _number(self.commits_acknowledged)),
            *(
                (f"commits lost by {nodes}", _number(lost))
                for nodes, lost in self.commits_lost_by_nodes.items()
            ),
            ("commits lost", _number(self.commits_lost)),
            ("time", _number(self.took_s, "s")),
        ]
        for name, value in rows:
            table.add_row(name, value)
        return table


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "not reached"
    form = ",.3g" if value % 1 and value < 1000 else ",.0f"
    return f"{value:{form}} {unit}".strip()


def _count(found: list[str] | None) -> str:
    return "not reached" if found is None else str(len(found))
