"""The servers that all other tests stand on do what the tests believe of them."""

import psycopg
import pytest

from tests.fix_pg import NewServer
from tools.server import Server


def test_a_server_is_of_the_major_asked_for(pg: Server, major: int) -> None:
    assert int(pg.value("show server_version_num")) // 10_000 == major


def test_a_killed_server_keeps_what_it_committed(pg: Server) -> None:
    pg.query("create table kept as select 1 as id")

    pg.kill()
    with pytest.raises(psycopg.OperationalError):
        pg.query("select 1")
    pg.start()

    assert pg.query("select id from kept") == [(1,)]


@pytest.mark.pg_features("lz4", "zstd", "pageinspect")
def test_a_build_with_the_features_asked_for_has_them(new_server: NewServer) -> None:
    server = new_server(checksums=True, wal_compression="lz4").start()

    server.reload(wal_compression="zstd")
    server.query("create extension pageinspect")

    assert server.value("show data_checksums") == "on"
    assert len(server.value("select get_raw_page('pg_class', 0)")) == 8192


def test_pgbench_and_a_base_backup_run_as_the_servers_user(pg: Server) -> None:
    pg.run("pgbench", "-i", "-q", "-s", 1)
    done = pg.run("pgbench", "-c", 2, "-t", 20)

    backup = pg.base_backup(pg.folder / "backup")

    assert "number of transactions actually processed: 40/40" in done.stdout
    assert (backup / "backup_manifest").stat().st_size > 0
