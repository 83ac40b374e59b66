"""Looks for acknowledged commits the hard way.

A stock server is recovered from an old base backup and the WAL of a bare majority of the nodes, the primary
out of reach, and asked for every id that a client was told is committed.
"""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.ledger import Id, Ledger
from tools.server import Server
from tools.stack import Program, Stack
from tools.standby import follow, wait_for_replay
from tools.wait import until

SLOT = "recovery"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a server recovered from one majority has."""

    nodes: tuple[str, ...]
    commit_lsn: str
    missing: frozenset[Id]


def hold_wal(stack: Stack, backup: Path) -> Path:
    """Take the base backup to recover from later, without WAL, and make the nodes keep all WAL since."""
    with stack.proposer().connect(replication="true") as connection:
        connection.execute(f"CREATE_REPLICATION_SLOT {SLOT} PHYSICAL RESERVE_WAL".encode())
    return stack.primary.base_backup(backup, "-X", "none", "--no-manifest")


def recover_from_each_majority(
    stack: Stack, backup: Path, ledger: Ledger, folder: Path, *, deadline_s: float = 60.0
) -> Iterator[Recovery]:
    """Bury the primary, then recover a server from each smallest majority of nodes alone, one after another.

    Each begins with what the nodes had on disk when the primary was buried; nothing that one majority did is
    left for the next.

    Args:
        stack: everything in it is killed here, and its primary's data directory is moved away.
        backup: as ``hold_wal`` made it.
        folder: for copies; as large as the data of the nodes.
        deadline_s: for each majority to agree; its server has four times as long for the replay.
    """
    stack.kill()
    stack.primary.data_dir.rename(stack.primary.data_dir.with_name("buried"))
    for node in stack.nodes:
        shutil.copytree(node.data_dir, folder / node.name)
    size = len(stack.nodes) // 2 + 1
    for majority in itertools.combinations(stack.nodes, size):
        for node in majority:
            shutil.rmtree(node.data_dir)
            shutil.copytree(folder / node.name, node.data_dir)
            node.start()
        try:
            yield _recover(stack, majority, backup, ledger, folder, deadline_s=deadline_s)
        finally:
            for node in majority:
                node.kill()


def _recover(
    stack: Stack,
    majority: tuple[Program, ...],
    backup: Path,
    ledger: Ledger,
    folder: Path,
    *,
    deadline_s: float,
) -> Recovery:
    what = "the nodes agree on a commit LSN without the primary"
    commit_lsn = until(stack.commit_lsn, what=what, deadline_s=deadline_s)
    server = Server(folder / "recovered", stack.primary.bindir, name="recovered")
    try:
        follow(server.restore(backup), stack.conninfo(*majority)).start(deadline_s=2 * deadline_s)
        wait_for_replay(server, commit_lsn, deadline_s=4 * deadline_s)
        missing = ledger.missing_from(server)
    except BaseException:
        server.kill()  # Its log stays, to be looked at.
        raise
    server.destroy()
    return Recovery(tuple(node.name for node in majority), commit_lsn, frozenset(missing))
