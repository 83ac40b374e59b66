"""The comparison of a standby with its primary sees equal rows and a single wrong one."""

from pathlib import Path

from tests.fix_pg import NewServer
from tools.process import Process
from tools.standby import make_standby, row_differences, wait_for_replay
from tools.wait import until


def test_a_standby_equals_its_primary_until_one_row_differs(
    new_server: NewServer, folder: Path, watched: list[Process]
) -> None:
    primary = new_server(fsync=False).start()
    primary.run("pgbench", "-i", "-q")
    standby = make_standby(folder / "standby", primary, primary.conninfo())
    watched.append(standby.process)
    try:
        standby.start()
        primary.run("pgbench", "-c", 4, "-t", 200)
        wait_for_replay(standby, primary.value("select pg_current_wal_insert_lsn()::text"))

        assert list(row_differences(primary, standby)) == []

        standby.query("select pg_wal_replay_pause()")
        state = "select pg_get_wal_replay_pause_state() = 'paused'"
        until(lambda: standby.value(state), what="replay is paused")
        primary.query("update pgbench_tellers set tbalance = tbalance + 1 where tid = 7")

        (difference,) = row_differences(primary, standby)
        assert "postgres.public.pgbench_tellers" in difference
    finally:
        standby.destroy()
