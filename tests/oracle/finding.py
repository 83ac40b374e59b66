"""What one workload showed on one major: a small JSON file, and the rows of the coverage table."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pageserver.checkwal import Report

_FIGURES = re.compile(r"\[[\s\d,]+\]")
RESULTS = Path(__file__).parents[2] / "docs/results"


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check-wal` found in the WAL of one run.

    Attributes:
        wal_bytes: from the first record that was read to the end of the last.
        settings: of the server, where they are not stock.
        counts: by rmgr and record: [seen, compared, different, without redo].
        differences: the first of each record type, in words.
        extra: what else was found in that run, by name.
    """

    workload: str
    major: int
    version: str
    wal_bytes: int
    compared: int
    different: int
    unsupported: int
    settings: Mapping[str, object]
    counts: Mapping[str, Mapping[str, list[int]]]
    differences: list[str]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        workload: str,
        report: Report,
        *,
        version: str,
        settings: Mapping[str, object],
        extra: Mapping[str, Any] | None = None,
    ) -> Self:
        counts: dict[str, dict[str, list[int]]] = {}
        for count in report.counts:
            figures = [count.seen, count.compared, count.different, count.unsupported]
            counts.setdefault(count.rmgr, {})[count.record] = figures
        return cls(
            workload=workload,
            major=report.major,
            version=version,
            wal_bytes=report.end_lsn - report.start_lsn,
            compared=report.compared,
            different=report.different,
            unsupported=report.unsupported,
            settings=settings,
            counts=counts,
            differences=[
                f"{d.rmgr}/{d.record} lsn={d.lsn:#x} page={d.page}: {d.what}" for d in report.differences
            ],
            extra=extra or {},
        )

    def figures(self) -> str:
        """In one line."""
        return f"compared={self.compared:,} different={self.different:,} no_redo={self.unsupported:,}"

    def wrong(self) -> Iterator[str]:
        """What must not be, in words."""
        yield from self.differences
        if self.unsupported:
            yield f"pages without redo: {self.unsupported}"
        verified = self.extra.get("verify", {})
        if verified.get("differences_found") or verified.get("not_checked"):
            yield f"verify: {verified}"

    def save(self, folder: Path = RESULTS) -> Path:
        """Write it as ``oracle-WORKLOAD-MAJOR.json``, a line a record type."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"oracle-{self.workload}-{self.major}.json"
        text = json.dumps(asdict(self), indent=1)
        path.write_text(_FIGURES.sub(lambda found: " ".join(found[0].split()), text) + "\n")
        return path


def load(folder: Path = RESULTS) -> Iterator[Finding]:
    """Every finding that was saved."""
    for path in sorted(folder.glob("oracle-*.json")):
        yield Finding(**json.loads(path.read_text()))
