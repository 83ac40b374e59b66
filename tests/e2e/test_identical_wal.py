"""Stock standbys and ``pg_receivewal`` stream from a node, and write the primary's WAL byte for byte."""

from pathlib import Path

import pytest

from tests.fix_results import Keep
from tests.fix_stack import NewStack
from tools.ledger import Ledger
from tools.process import Process
from tools.server import Server
from tools.standby import make_standby, row_differences, wait_for_replay
from tools.wait import until


def segments(folder: Path, *, before: str) -> dict[str, bytes]:
    """Complete segment files, those that a server has made ahead left out."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if len(path.name) == 24 and path.name < before
    }


@pytest.mark.slow
def test_what_stock_clients_write_is_the_primarys_wal(
    new_stack: NewStack, folder: Path, watched: list[Process], keep: Keep
) -> None:
    run_streams(new_stack, folder, watched, keep, scale=2, duration_s=10)


@pytest.mark.matrix
def test_what_stock_clients_write_for_a_minute_is_the_primarys_wal(
    new_stack: NewStack, folder: Path, watched: list[Process], keep: Keep
) -> None:
    run_streams(new_stack, folder, watched, keep, scale=20, duration_s=60)


def run_streams(
    new_stack: NewStack, folder: Path, watched: list[Process], keep: Keep, *, scale: int, duration_s: int
) -> None:
    """Let a standby and ``pg_receivewal --synchronous`` follow two nodes for the length of a load."""
    stack = new_stack(primary={"wal_keep_size": "4GB", "max_wal_size": "4GB", "wal_recycle": False})
    stack.start(pageserver=False)
    primary = stack.primary
    receiver = start_receiver(primary, stack.nodes[1].conninfo())
    standby = make_standby(folder / "standby", primary, stack.nodes[2].conninfo())
    watched.extend([receiver, standby.process])
    try:
        standby.start()
        ledger = Ledger(primary, scale=scale)
        ledger.create()

        assert ledger.start(clients=4, duration_s=duration_s).wait(deadline_s=duration_s + 60) == 0
        for filler in range(3):
            primary.query("select pg_switch_wal()")
            primary.query(f"select pg_logical_emit_message(true, 'filler', '{filler}')")
        end, current = primary.query("select pg_switch_wal()::text, pg_walfile_name(pg_current_wal_lsn())")[0]
        wait_for_replay(standby, end)
        received = primary.folder / "received"
        names = sorted(segments(primary.data_dir / "pg_wal", before=current))
        until((received / names[-1]).exists, what="pg_receivewal completes the last segment")

        expected = segments(primary.data_dir / "pg_wal", before=current)
        by_receiver = segments(received, before=current)
        by_standby = segments(standby.data_dir / "pg_wal", before=current)
        keep(receiver_segments=len(by_receiver), standby_segments=len(by_standby))
        assert len(by_receiver) >= 3
        assert len(by_standby) >= 3
        for written in (by_receiver, by_standby):
            # Whole from its first segment on, and the same.
            assert sorted(written) == sorted(name for name in expected if name >= min(written))
            assert [name for name, content in written.items() if expected[name] != content] == []
        assert list(row_differences(primary, standby)) == []
    finally:
        receiver.kill()
        standby.destroy()


def start_receiver(primary: Server, upstream: str) -> Process:
    target = primary.own(primary.folder / "received")
    receiver = primary.background("pg_receivewal", "--synchronous", "-D", target, "-d", upstream, "-v")
    receiver.start()
    return receiver
