"""Physical replication slots: what a consumer has, and so the WAL that is held for it."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walproxy.errors import DataDamaged
from walproxy.quorum.messages import Feedback
from walproxy.store.sealed import SealedFile
from walproxy.wire.errors import UNDEFINED_OBJECT, SqlError
from walproxy.wire.lsn import INVALID_LSN, Lsn, parse_lsn

# A slot's position goes to disk when it has moved this far; until then the WAL since the saved one is held.
_SAVE_EVERY_BYTES: Final = 1 << 20
_NO_FEEDBACK: Final = Feedback()
_ADVICE: Final = "remove it and create the slots anew; without them nothing holds WAL for their consumers"


@dataclass(slots=True)
class Slot:
    """One slot.

    Args:
        restart_lsn: end of what the consumer has made durable; INVALID_LSN if it holds nothing yet.
        saved_lsn: the same, as it stands on disk: WAL is held from here on.
        active_pid: the session that streams from it; 0 for none.
        feedback: the consumer's last one. It outlives the connection, as in Postgres.
    """

    name: str
    restart_lsn: Lsn = INVALID_LSN
    saved_lsn: Lsn = INVALID_LSN
    apply_lsn: Lsn = INVALID_LSN
    is_temporary: bool = False
    active_pid: int = 0
    feedback: Feedback = _NO_FEEDBACK


class Slots:
    """All slots of a node, in ``<data_dir>/slots``. Belongs to the event loop."""

    def __init__(self, data_dir: Path) -> None:
        self._file = SealedFile(data_dir / "slots", magic=b"WALPSLOT", version=1, advice=_ADVICE)
        self._slots: dict[str, Slot] = {}
        self._saving = asyncio.Lock()
        self._released = asyncio.Condition()
        payload = self._file.load()
        if payload is not None:
            try:
                for name, text in json.loads(payload).items():
                    lsn = parse_lsn(text)
                    self._slots[name] = Slot(name, lsn, lsn)
            except (ValueError, AttributeError) as error:
                raise DataDamaged(f"{self._file.path} is damaged: {error}; {_ADVICE}") from error

    def all(self) -> list[Slot]:
        return list(self._slots.values())

    def find(self, name: str) -> Slot | None:
        return self._slots.get(name)

    def get(self, name: str) -> Slot:
        """The slot of that name. Raises SqlError."""
        if name not in self._slots:
            raise SqlError(UNDEFINED_OBJECT, f'replication slot "{name}" does not exist')
        return self._slots[name]

    async def create(self, name: str, *, restart_lsn: Lsn, temporary_for: int = 0) -> Slot:
        """Make a slot, durable when it returns unless it is temporary. Raises SqlError, Poisoned."""
        if name in self._slots:
            raise SqlError("42710", f'replication slot "{name}" already exists')
        slot = Slot(name, restart_lsn, restart_lsn, is_temporary=temporary_for != 0, active_pid=temporary_for)
        self._slots[name] = slot
        if not slot.is_temporary:
            await self._save()
        return slot

    async def drop(self, name: str, *, wait: bool, pid: int) -> None:
        """Remove a slot. Raises SqlError if it is in use and we do not wait; Poisoned."""
        slot = self.get(name)
        if wait:
            async with self._released:
                await self._released.wait_for(lambda: slot.active_pid in {0, pid})
        _check_free(slot, pid)
        if self._slots.pop(name, None) is not None and not slot.is_temporary:
            await self._save()

    def acquire(self, name: str, pid: int) -> Slot:
        """Take a slot for a session. Raises SqlError if another one has it."""
        slot = self.get(name)
        _check_free(slot, pid)
        slot.active_pid = pid
        return slot

    async def release(self, slot: Slot) -> None:
        """Let go of a slot; a temporary one stays with its session."""
        if not slot.is_temporary:
            slot.active_pid = 0
            async with self._released:
                self._released.notify_all()

    async def end_session(self, pid: int) -> None:
        """Drop the temporary slots of a session."""
        for slot in self.all():
            if slot.is_temporary and slot.active_pid == pid:
                del self._slots[slot.name]

    async def advance(self, slot: Slot, flush_lsn: Lsn) -> None:
        """The consumer has everything up to there; it never needs less again. Raises Poisoned."""
        slot.restart_lsn = max(slot.restart_lsn, flush_lsn)
        if slot.is_temporary:
            slot.saved_lsn = slot.restart_lsn
        elif slot.restart_lsn - slot.saved_lsn >= _SAVE_EVERY_BYTES:
            await self._save()

    async def _save(self) -> None:
        async with self._saving:
            kept = {slot.name: slot.restart_lsn for slot in self._slots.values() if not slot.is_temporary}
            payload = json.dumps({name: str(lsn) for name, lsn in kept.items()}).encode()
            await asyncio.get_running_loop().run_in_executor(None, self._file.save, payload)
            for name, lsn in kept.items():
                if name in self._slots:
                    self._slots[name].saved_lsn = lsn


def _check_free(slot: Slot, pid: int) -> None:
    if slot.active_pid not in {0, pid}:
        raise SqlError("55006", f'replication slot "{slot.name}" is active for PID {slot.active_pid}')
