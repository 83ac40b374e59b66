"""The data directory: its parts, its lock, and what may be swept out of it."""

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pageserver import manifest
from pageserver.errors import ConfigInvalid

_OURS = frozenset({"lock", "manifest", "manifest.new", "layers", "wal", "state", "staging"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are. `lock_fd` keeps every other pageserver out as long as it is open."""

    root: Path
    lock_fd: int

    @property
    def wal(self) -> Path:
        """Segment files."""
        return self.root / "wal"

    @property
    def layers(self) -> Path:
        """Layer files and the states of ingest beside them."""
        return self.root / "layers"

    @property
    def state(self) -> Path:
        """The small files of the base backup: control file, relation maps, prepared transactions."""
        return self.root / "state"

    @property
    def staging(self) -> Path:
        """Relations of a base backup until they are in a layer."""
        return self.root / "staging"

    def close(self) -> None:
        """Let another pageserver have it."""
        os.close(self.lock_fd)

    def clear(self) -> None:
        """Remove what an interrupted bootstrap left. Only without a manifest."""
        assert not (self.root / manifest.NAME).exists()
        for part in (self.staging, self.layers, self.wal, self.state):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
        manifest.sync_dir(self.root)

    def sweep(self, keep: frozenset[str]) -> list[str]:
        """Remove files that no manifest names: leftovers of a write that was cut off. Returns their names."""
        shutil.rmtree(self.staging, ignore_errors=True)
        (self.root / (manifest.NAME + ".new")).unlink(missing_ok=True)
        swept = sorted(path.name for path in self.layers.iterdir() if path.name not in keep)
        for name in swept:
            (self.layers / name).unlink()
        return swept


def open_layout(root: Path) -> Layout:
    """Take hold of a data directory, made if it is not there.

    Raises:
        ConfigInvalid: another pageserver runs on it, it holds files not of ours, or cannot be written.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        strangers = sorted({path.name for path in root.iterdir()} - _OURS)
        if strangers:
            raise ConfigInvalid(
                "data_dir holds files that are not a pageserver's", data_dir=root, file=strangers[0]
            )
        fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigInvalid("data_dir cannot be used", data_dir=root, reason=error.strerror) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigInvalid("another pageserver runs on this data_dir", data_dir=root) from None
    return Layout(root, fd)
