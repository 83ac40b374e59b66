"""What the WAL says of the primary's settings, and from which LSN on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pageserver.manifest import FullPageWrites, Manifest


@dataclass(slots=True)
class PrimarySettings:
    """State of full_page_writes and of WAL-logged hint bits, followed record by record.

    Args:
        hint_steps: (from that LSN on, hint bits are WAL-logged), ascending.
    """

    data_checksums: bool
    full_page_writes: FullPageWrites
    hint_steps: list[tuple[int, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, manifest: Manifest) -> "PrimarySettings":
        """As of the manifest's end."""
        return cls(manifest.data_checksums, manifest.full_page_writes, list(manifest.hint_steps))

    def follow(self, events: Iterable[dict[str, Any]]) -> None:
        """Take events as `Ingest.take_events` gives them, in order."""
        for event in events:
            match event["kind"]:
                case "fpw_change":
                    self._set_full_page_writes(event["full_page_writes"], event["lsn"])
                case "checkpoint":
                    # It holds the state as of its redo point; a change may stand between that and the record.
                    if event["redo_lsn"] >= self.full_page_writes.lsn:
                        self._set_full_page_writes(event["full_page_writes"], event["redo_lsn"])
                case "parameter_change":
                    is_logged = self.data_checksums or event["wal_log_hints"]
                    if is_logged != self.hint_steps[-1][1]:
                        self.hint_steps.append((event["lsn"], is_logged))
                case _:
                    pass

    def _set_full_page_writes(self, is_on: bool, lsn: int) -> None:
        if is_on != self.full_page_writes.is_on:
            self.full_page_writes = FullPageWrites(is_on, lsn)
