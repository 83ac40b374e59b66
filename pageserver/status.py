"""What a pageserver says of itself, and how that is shown to a person."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg.rows import scalar_row
from rich.console import Console
from rich.table import Table

from pageserver.bootstrap import Bootstrap
from pageserver.errors import NodeUnreachable
from pageserver.ingest import WalReceiver
from pageserver.timeline import Timeline
from walproxy.wire.lsn import Lsn

SHOW_NAME = "pageserver.status"


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to `SHOW pageserver.status`. LSNs are as Postgres prints them; None is not known yet."""

    state: str
    """bootstrapping, recovering (indexing local WAL again), catching up to the consistency point, serving."""
    connected_node: str | None
    last_error: str | None
    system_id: str | None = None
    major: int | None = None
    tli: int | None = None
    consistency_lsn: str | None = None
    received_lsn: str | None = None
    ingested_lsn: str | None = None
    durable_lsn: str | None = None
    layers_lsn: str | None = None
    full_page_writes: str | None = None
    full_page_writes_lsn: str | None = None
    hint_bits_logged: bool | None = None
    layers_count: int | None = None
    layers_bytes: int | None = None
    open_layer_bytes: int | None = None
    wal_bytes: int | None = None
    bootstrap_received_bytes: int | None = None
    bootstrap_estimate_bytes: int | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def before_pages(attempt: Bootstrap | None, last_error: str | None, *, is_recovering: bool) -> Status:
    """While there is no timeline to serve from yet."""
    return Status(
        state="recovering" if is_recovering else "bootstrapping",
        connected_node=None,
        last_error=last_error,
        bootstrap_received_bytes=None if attempt is None else attempt.staging.received_bytes,
        bootstrap_estimate_bytes=None if attempt is None else attempt.staging.estimate_bytes,
    )


def of_timeline(timeline: Timeline, receiver: WalReceiver) -> Status:
    """From then on."""
    manifest = timeline.manifest
    is_consistent = timeline.ingested_lsn >= timeline.consistency_lsn
    return Status(
        state="serving" if is_consistent else "catching up to the consistency point",
        connected_node=receiver.connected_node,
        last_error=receiver.last_error,
        system_id=str(manifest.system_id),
        major=manifest.major,
        tli=manifest.tli,
        consistency_lsn=str(timeline.consistency_lsn),
        received_lsn=str(timeline.received_lsn),
        ingested_lsn=str(timeline.ingested_lsn),
        durable_lsn=str(timeline.durable_lsn),
        layers_lsn=str(Lsn(manifest.end_lsn)),
        full_page_writes="on" if timeline.primary.full_page_writes.is_on else "off",
        full_page_writes_lsn=str(Lsn(timeline.primary.full_page_writes.lsn)),
        hint_bits_logged=timeline.primary.hint_steps[-1][1],
        layers_count=len(manifest.layers),
        layers_bytes=sum(layer.file_bytes for layer in manifest.layers),
        open_layer_bytes=timeline.open_bytes,
        wal_bytes=timeline.wal_bytes,
    )


def ask(conninfo: str) -> dict[str, Any]:
    """Get the status of a running pageserver.

    Raises:
        NodeUnreachable: no answer.
    """
    try:
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=10) as connection:
            text = connection.cursor(row_factory=scalar_row).execute(f"SHOW {SHOW_NAME}").fetchone()
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise NodeUnreachable("the pageserver does not answer: is it running?", reason=reason) from error
    shown: dict[str, Any] = json.loads(str(text))
    return shown


def print_table(status: dict[str, Any], console: Console) -> None:
    """Show a status to a person."""
    table = Table("", "", show_header=False, box=None)
    for name, value in status.items():
        if value is not None:
            shown = f"{value:,}" if name.endswith(("_bytes", "_count")) else str(value)
            table.add_row(name.replace("_", " "), shown)
    console.print(table)
