"""The listener of a node: replication commands, and `SHOW walproxy.status`."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from walproxy.errors import Poisoned
from walproxy.feedback import oldest
from walproxy.observe import Observer
from walproxy.ports import NodeView
from walproxy.quorum.messages import Feedback, SlotHorizon
from walproxy.quorum.state import Cluster
from walproxy.store.slots import Slots
from walproxy.walsender import WalSender, current_tli
from walproxy.wire import datum
from walproxy.wire.aio import Address, Connection, Handler, serve
from walproxy.wire.errors import UNDEFINED_OBJECT, SqlError
from walproxy.wire.function import Column, Functions
from walproxy.wire.lsn import INVALID_LSN
from walproxy.wire.replication import (
    Command,
    CreateSlot,
    DropSlot,
    IdentifySystem,
    ReadSlot,
    StartPeer,
    StartReplication,
    TimelineHistory,
)

_MAJOR_UNKNOWN: Final = 18  # Until a primary was reached, clients are told something they can read.
_SLOT_COLUMNS: Final = (
    Column("slot_type", datum.TEXT),
    Column("restart_lsn", datum.TEXT),
    Column("restart_tli", datum.INT8),
)
_CREATED_COLUMNS: Final = tuple(
    Column(name, datum.TEXT) for name in ("slot_name", "consistent_point", "snapshot_name", "output_plugin")
)
_HISTORY_COLUMNS: Final = (Column("filename", datum.TEXT), Column("content", datum.RAW))


class Service(Handler):
    """What a node does for its clients; also `ports.Downstreams`.

    Args:
        node: whose WAL and state are served.
        slots: of this node.
    """

    fatal = (Poisoned,)

    def __init__(self, node: NodeView, slots: Slots) -> None:
        self.functions: Functions = node.functions()
        self._node = node
        self._slots = slots
        self._senders: dict[int, WalSender] = {}
        self._observer = Observer(node)

    async def run(self, address: Address) -> None:
        """Serve until cancelled. Raises OSError, Poisoned (in an ExceptionGroup)."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observer.run())
            tasks.create_task(serve(address, self))

    # --- Downstreams --------------------------------------------------------------------------------------

    def slots(self) -> tuple[SlotHorizon, ...]:
        """The slots that hold WAL, and the consumers that have none, for as long as they are connected."""
        held = [SlotHorizon(slot.name, slot.saved_lsn, slot.apply_lsn) for slot in self._slots.all()]
        held += [
            SlotHorizon(f"{self._node.name}/{pid}", sender.flush_lsn or sender.sent_lsn, sender.apply_lsn)
            for pid, sender in self._senders.items()
            if sender.slot is None
        ]
        return tuple(horizon for horizon in held if horizon.flush_lsn > INVALID_LSN)

    def feedback(self) -> Feedback:
        """The oldest of all consumers, connected or with a slot."""
        known = [sender.feedback for sender in self._senders.values() if sender.slot is None]
        return oldest(known + [slot.feedback for slot in self._slots.all()])

    # --- Handler ------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, str]:
        return {"server_version": self._server_version}

    @property
    def _server_version(self) -> str:
        """The major is the primary's: clients refuse servers that are newer than themselves."""
        cluster = self._node.cluster
        return f"{cluster.major if cluster else _MAJOR_UNKNOWN}.0 (walproxy {version('walproxy')})"

    async def show(self, name: str) -> str:
        match name:
            case "walproxy.status":
                return json.dumps(self.status())
            case "server_version":
                return self._server_version
            case "server_version_num":
                return f"{self._cluster().major}0000"
            case "wal_segment_size":
                size = self._cluster().segment_size
                return f"{size >> 30}GB" if size >= 1 << 30 else f"{size >> 20}MB"
            case "data_directory_mode":
                return "0700"
            case _:
                raise SqlError(UNDEFINED_OBJECT, f'unrecognized configuration parameter "{name}"')

    async def replicate(self, connection: Connection, command: Command) -> None:
        match command:
            case StartPeer():
                await self._node.serve_peer(await connection.start_copy())
            case IdentifySystem():
                await self._identify_system(connection)
            case StartReplication():
                await self._start_replication(connection, command)
            case TimelineHistory(tli):
                await self._timeline_history(connection, tli)
            case ReadSlot(name):
                await self._read_slot(connection, name)
            case CreateSlot():
                await self._create_slot(connection, command)
            case DropSlot(name, wait):
                await self._slots.drop(name, wait=wait, pid=connection.pid)
                self._node.downstream_moved()
                await connection.put_complete("DROP_REPLICATION_SLOT")
            case _:
                raise AssertionError(command)

    async def closed(self, connection: Connection) -> None:
        """Its temporary slots go with it."""
        await self._slots.end_session(connection.pid)

    # --- commands -----------------------------------------------------------------------------------------

    def _cluster(self) -> Cluster:
        cluster = self._node.cluster
        if cluster is None or self._node.commit_lsn == INVALID_LSN:
            hint = "Look at `walproxy status`: no primary was reached yet, or no quorum."
            raise SqlError("57P03", "this node has no committed WAL yet", hint=hint)
        return cluster

    async def _identify_system(self, connection: Connection) -> None:
        cluster = self._cluster()
        columns = (
            Column("systemid", datum.TEXT),
            Column("timeline", datum.INT4 if cluster.major < 16 else datum.INT8),
            Column("xlogpos", datum.TEXT),
            Column("dbname", datum.TEXT),
        )
        row = (str(cluster.system_id), current_tli(self._node), str(self._node.commit_lsn), None)
        await connection.put_result(columns, [row], "IDENTIFY_SYSTEM")

    async def _start_replication(self, connection: Connection, command: StartReplication) -> None:
        sender = WalSender(self._node, self._slots, connection)
        cluster = self._cluster()
        self._senders[connection.pid] = sender
        try:
            await sender.run(command, cluster)
        finally:
            del self._senders[connection.pid]
            self._node.downstream_moved()

    async def _timeline_history(self, connection: Connection, tli: int) -> None:
        name = f"{tli:08X}.history"
        content = self._node.histories().get(tli)
        if content is None:
            raise SqlError("58P01", f'could not open file "pg_wal/{name}": No such file or directory')
        await connection.put_result(_HISTORY_COLUMNS, [(name, content)], "TIMELINE_HISTORY")

    async def _read_slot(self, connection: Connection, name: str) -> None:
        slot = self._slots.find(name)
        row: tuple[object, ...] = (None, None, None)
        if slot is not None:
            lsn = slot.restart_lsn
            tli = self._node.term_history.tli_at(lsn) or current_tli(self._node)
            row = ("physical", str(lsn), tli) if lsn else ("physical", None, None)
        await connection.put_result(_SLOT_COLUMNS, [row], "READ_REPLICATION_SLOT")

    async def _create_slot(self, connection: Connection, command: CreateSlot) -> None:
        self._cluster()
        # The oldest WAL here: what a base backup taken before this needs may be among it.
        restart_lsn = self._node.start_lsn if command.reserve_wal else INVALID_LSN
        temporary_for = connection.pid if command.is_temporary else 0
        slot = await self._slots.create(command.slot, restart_lsn=restart_lsn, temporary_for=temporary_for)
        self._node.downstream_moved()
        row = (slot.name, "0/0", None, None)
        await connection.put_result(_CREATED_COLUMNS, [row], "CREATE_REPLICATION_SLOT")

    # --- status -------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """`SHOW walproxy.status`, ready for JSON."""
        commit_lsn = self._node.commit_lsn
        return {
            **self._node.status(),
            "downstreams": [
                {
                    "pid": sender.connection.pid,
                    "application_name": sender.connection.application_name,
                    "peer": sender.connection.peer,
                    "state": sender.state,
                    "slot": sender.slot.name if sender.slot else None,
                    "tli": sender.tli,
                    "sent_lsn": str(sender.sent_lsn),
                    "write_lsn": str(sender.write_lsn),
                    "flush_lsn": str(sender.flush_lsn),
                    "told_flush_lsn": str(sender.told_flush_lsn),
                    "apply_lsn": str(sender.apply_lsn),
                    "lag_bytes": max(0, commit_lsn - sender.flush_lsn) if sender.flush_lsn else None,
                }
                for sender in self._senders.values()
            ],
            "slots": [
                {
                    "name": slot.name,
                    "restart_lsn": str(slot.restart_lsn) if slot.restart_lsn else None,
                    "apply_lsn": str(slot.apply_lsn) if slot.apply_lsn else None,
                    "is_temporary": slot.is_temporary,
                    "active_pid": slot.active_pid or None,
                    "held_bytes": max(0, commit_lsn - slot.saved_lsn) if slot.saved_lsn else 0,
                }
                for slot in self._slots.all()
            ],
            "wal_segment_size_bytes": cluster.segment_size if (cluster := self._node.cluster) else None,
            "hot_standby_feedback": asdict(self.feedback()),
            **self._observer.status(),
        }


async def serve_node(address: Address, node: NodeView, *, data_dir: Path) -> None:
    """Serve a node's clients until cancelled.

    Raises:
        DataDamaged: the slots file.
        OSError: the address cannot be listened on.
        ExceptionGroup: of Poisoned.
    """
    service = Service(node, Slots(data_dir))
    node.attach(service)
    await service.run(address)
