"""The control file: term, vote, term history and positions of a node."""

from pathlib import Path
from typing import Final

from walproxy.errors import DataDamaged
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.state import ControlState, check_segment_size, decode_control, encode_control
from walproxy.store.sealed import SealedFile

# It cannot be rebuilt under its name, nor go on from an older copy. Source: docs/quorum.md rule 2.
ADVICE: Final = (
    "leave this node stopped and keep its data directory: under its name it cannot come back with an older copy; "
    "with an empty one it comes back by `walproxy member replace`: see 'When a node loses its data' in the README"
)


class ControlFile:
    """``<data_dir>/control``. Blocking."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file = SealedFile(data_dir / "control", magic=b"WALPCTRL", version=1, advice=ADVICE)

    def load(self) -> ControlState | None:
        """The saved state; None if no node ever ran here.

        Raises:
            DataDamaged: the file fails its checks, or it is missing beside WAL: a node without its vote
                must not go on.
        """
        payload = self._file.load()
        if payload is None:
            if any((self._data_dir / "wal").glob("*")):
                raise DataDamaged(f"{self._file.path} is missing, but there is WAL beside it; {ADVICE}")
            return None
        try:
            state = decode_control(payload)
            check_segment_size(state.cluster)
        except MessageMalformed as error:
            raise DataDamaged(f"{self._file.path} is damaged: {error}; {ADVICE}") from error
        return state

    def save(self, state: ControlState) -> None:
        """Replace the file. Durable when it returns. Raises Poisoned."""
        self._file.save(encode_control(state))
