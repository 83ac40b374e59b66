"""A pageserver beside a real primary: bootstrap under load, restart, and what bad input gets."""

import socket
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.e2e.faulty_node import Fault, faulty_node
from tests.e2e.pageserver_process import LOGGED, catch_up, differences, load
from tests.fix_pageserver import NewPageserver, configure, serving
from tests.fix_pg import NewServer
from tests.fix_stack import NewStack
from tools.process import Process
from tools.stack import NOT_YET
from tools.standby import make_standby, wait_for_replay
from tools.wait import until


def test_pages_equal_the_servers_after_a_bootstrap_under_load_and_a_kill(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server(autovacuum_naptime="1s").start()
    primary.run("pgbench", "-i", "-q", "-s", 5)
    pageserver = new_pageserver(primary, layer_wal_bytes_max=8 << 20)
    before = load(primary, 600)
    pageserver.start()
    status = serving(pageserver)
    assert before.alive, "the base backup must be taken under load"
    time.sleep(3)

    pageserver.kill()
    time.sleep(1)
    pageserver.start()
    again = serving(pageserver)
    assert before.alive, "so must the restart"
    before.kill()
    during = load(primary, 3)
    assert during.wait(deadline_s=60) == 0

    assert again["consistency_lsn"] == status["consistency_lsn"], "no second base backup"
    assert again["layers_count"] > 1, "the restart must read layers"
    pages, different = differences(primary, pageserver)
    assert not different
    assert pages > 8000
    assert pageserver.stop() == 0


def test_a_page_of_an_earlier_lsn_stays_what_it_was(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    primary.query("create extension pageinspect")
    primary.query("create table t as select 1 as v")
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    ((rel, *_),) = primary.query(LOGGED + " and c.relname = 't'")
    first = catch_up(primary, pageserver)
    page = pageserver.query("select get_raw_page(%s, 'main', 0, %s)", rel, first)

    primary.query("update t set v = 2")
    second = catch_up(primary, pageserver)

    assert pageserver.query("select get_raw_page(%s, 'main', 0, %s)", rel, first) == page
    assert pageserver.query("select get_raw_page(%s, 'main', 0, %s)", rel, second) != page
    assert pageserver.query("select get_raw_page(%s, 'main', 0)", rel) != page


def test_a_read_that_cannot_be_answered_says_why(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    primary.query("create table t as select 1 as v")
    pageserver = new_pageserver(primary, lsn_wait_timeout_s=0.2)
    pageserver.start()
    status = serving(pageserver)
    lsn = catch_up(primary, pageserver)
    node = primary.value("select pg_relation_filenode('t')")
    rel = f"1663/5/{node}"

    for query, values, reason in (
        (
            "select get_raw_page(%s, 'main', 0, '0/1000000')",
            (rel,),
            "consistency_lsn=" + status["consistency_lsn"],
        ),
        ("select get_raw_page(%s, 'main', 0, 'FF/0')", (rel,), "ingested_lsn="),
        ("select get_raw_page('1663/5/99', 'main', 0, %s)", (lsn,), "relation does not exist"),
        ("select get_raw_page(%s, 'main', 7, %s)", (rel, lsn), "block"),
        ("select get_raw_page(%s, 'main', -1, %s)", (rel, lsn), "invalid block number"),
        ("select get_raw_page(%s, 'fsm', 0, %s)", (rel, lsn), "free space maps"),
        ("select get_raw_page('t', 'main', 0, %s)", (lsn,), "tablespace/database/relfilenode"),
        ("select wait_for_lsn('FF/0', 0.1)", (), "ingested_lsn="),
        ("select get_slru_page('pg_notify', 0, %s)", (lsn,), "pg_xact"),
        ("select nonsense(1)", (), "get_raw_page"),
    ):
        with pytest.raises(psycopg.Error, match=reason) as error:
            pageserver.query(query, *values)
        assert error.value.sqlstate not in {None, "XX000"}, query
    assert pageserver.query("select relation_size('1663/5/99', 'main', %s)", lsn) == [(None,)]
    assert pageserver.status()["state"] == "serving"


def test_garbage_on_the_port_is_survived(new_server: NewServer, new_pageserver: NewPageserver) -> None:
    primary = new_server().start()
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)

    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        b"\xff" * 4096,
        b"\0\0\0\x08\x04\xd2\x16\x2fGARBAGE",
    ):
        with socket.create_connection(("127.0.0.1", pageserver.port), timeout=5) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass

    assert pageserver.status()["state"] == "serving"


def test_another_cluster_is_refused(new_server: NewServer, new_pageserver: NewPageserver) -> None:
    primary, other = new_server("primary").start(), new_server("other").start()

    never = new_pageserver(primary, other.conninfo())
    never.start()
    assert never.wait() == 5
    assert "another cluster" in never.tail()
    assert not (never.data_dir / "manifest").exists()

    misled = new_pageserver(primary)
    misled.start()
    serving(misled)
    assert misled.stop() == 0
    configure(misled, primary, other.conninfo())
    misled.start()
    status = until(
        lambda: (s := misled.status())["last_error"] and s, what="the node is refused", ignoring=NOT_YET
    )
    assert "another cluster" in status["last_error"]
    assert status["connected_node"] is None
    assert misled.query("select relation_size('1664/0/1262', 'main')") != [(None,)]

    configure(misled, primary, other.conninfo(), primary.conninfo())
    assert misled.stop() == 0
    misled.start()
    catch_up_to = primary.value("select pg_current_wal_insert_lsn()::text")
    serving(misled)
    misled.query("select wait_for_lsn(%s::pg_lsn)", catch_up_to)


def test_an_interrupted_bootstrap_starts_over(new_server: NewServer, new_pageserver: NewPageserver) -> None:
    primary = new_server().start()
    primary.run("pgbench", "-i", "-q", "-s", 20)
    pageserver = new_pageserver(primary)
    pageserver.start()
    until(
        lambda: (pageserver.status()["bootstrap_received_bytes"] or 0) > 10_000_000,
        what="the base backup is on its way",
        ignoring=NOT_YET,
        pause_s=0.01,
    )
    pageserver.kill()
    assert not (pageserver.data_dir / "manifest").exists()

    pageserver.start()
    serving(pageserver)

    assert not (pageserver.data_dir / "staging").exists()
    pages, different = differences(primary, pageserver)
    assert pages > 30_000
    assert not different


@pytest.mark.parametrize("damaged", ["manifest", "layer", "state"])
def test_a_damaged_file_of_ours_ends_it_with_what_to_do(
    damaged: str, new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    assert pageserver.stop() == 0
    (path,) = pageserver.data_dir.glob(
        {"manifest": "manifest", "layer": "layers/*.base", "state": "layers/*.state"}[damaged]
    )
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)

    pageserver.start()

    assert pageserver.wait() == 3
    assert "empty data_dir" in pageserver.tail()


def test_the_state_of_full_page_writes_is_followed(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    pageserver = new_pageserver(primary)
    pageserver.start()
    on = serving(pageserver)
    before = primary.value("select pg_current_wal_insert_lsn()::text")

    primary.reload(full_page_writes=False)
    off = until(
        lambda: (s := pageserver.status())["full_page_writes"] == "off" and s,
        what="full_page_writes is seen off",
    )
    pageserver.kill()
    pageserver.start()

    assert on["full_page_writes"] == "on"
    assert primary.value("select %s::pg_lsn >= %s::pg_lsn", off["full_page_writes_lsn"], before)
    again = serving(pageserver)
    assert again["full_page_writes"] == "off"
    assert again["full_page_writes_lsn"] == off["full_page_writes_lsn"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.FLIP, "damaged wal"),
        (Fault.GAP, "gap in the wal"),
        (Fault.SILENT, "another node has more wal"),
        (Fault.BEHIND, "another node has more wal"),
        (Fault.HANG_UP, "lost the node"),
    ],
)
def test_a_bad_node_is_left_for_the_next(
    fault: Fault, reason: str, new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    with faulty_node(primary.conninfo()) as node:
        pageserver = new_pageserver(primary, node.conninfo, primary.conninfo())
        pageserver.start()
        assert f"port={node.address.port}" in serving(pageserver)["connected_node"]

        node.fault = fault
        primary.run("pgbench", "-i", "-q", "-s", 1)

        _pages, different = differences(primary, pageserver)
        assert not different
        assert reason in pageserver.tail()
        assert f"port={primary.port}" in pageserver.status()["connected_node"]


@pytest.mark.parametrize(("fault", "reason"), [(Fault.FLIP, "damaged"), (Fault.SILENT, "silent")])
def test_with_no_good_node_it_serves_what_it_has_and_goes_on_later(
    fault: Fault, reason: str, new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    primary.query("create table t as select 1 as v")
    ((rel, *_),) = primary.query(LOGGED + " and c.relname = 't'")
    with faulty_node(primary.conninfo()) as node:
        pageserver = new_pageserver(primary, node.conninfo)
        pageserver.start()
        serving(pageserver)
        catch_up(primary, pageserver)
        page = pageserver.query("select get_raw_page(%s, 'main', 0)", rel)

        node.fault = fault
        primary.query("update t set v = 2")
        until(lambda: reason in (pageserver.status()["last_error"] or ""), what="the fault is seen")

        assert pageserver.query("select get_raw_page(%s, 'main', 0)", rel) == page
        node.fault = Fault.NONE
        _pages, different = differences(primary, pageserver)
        assert not different


def test_after_the_end_of_its_timeline_it_goes_on_to_serve_what_it_has(
    new_server: NewServer, new_pageserver: NewPageserver, folder: Path, watched: list[Process]
) -> None:
    """A node has nothing to send from there on, and says so in place of a stream."""
    primary = new_server().start()
    primary.query("create table t as select 1 as v")
    ((rel, *_),) = primary.query(LOGGED + " and c.relname = 't'")
    standby = make_standby(folder / "standby", primary, primary.conninfo())
    watched.append(standby.process)
    try:
        standby.start()
        pageserver = new_pageserver(primary, standby.conninfo())
        pageserver.start()
        serving(pageserver)
        lsn = catch_up(primary, pageserver)
        wait_for_replay(standby, lsn)
        page = pageserver.query("select get_raw_page(%s, 'main', 0)", rel)
        primary.stop(immediate=True)

        standby.query("select pg_promote()")

        until(lambda: "timeline ended" in (pageserver.status()["last_error"] or ""), what="it sees the end")
        asked = pageserver.tail(400).count("wal stream begins")
        pageserver.stop()
        pageserver.start()
        until(
            lambda: "timeline ended" in (pageserver.status()["last_error"] or ""),
            what="it asks again from where it ended",
            ignoring=(OSError, psycopg.Error),
        )
        assert pageserver.tail(400).count("wal stream begins") == asked
        assert pageserver.query("select get_raw_page(%s, 'main', 0)", rel) == page
    finally:
        standby.destroy()


def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_room(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server().start()
    pageserver = new_pageserver(primary)
    pageserver.data_dir.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(pageserver.data_dir)]
    if subprocess.run(small, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        pageserver.start()
        serving(pageserver)

        primary.run("pgbench", "-i", "-q", "-s", 8)

        assert pageserver.wait(deadline_s=60) == 4
        assert "No space left on device" in pageserver.tail()
        grown = ["mount", "-o", "remount,size=900m", str(pageserver.data_dir)]
        subprocess.run(grown, check=True)
        pageserver.start()
        serving(pageserver)
        _pages, different = differences(primary, pageserver)
        assert not different
    finally:
        pageserver.kill()
        subprocess.run(["umount", str(pageserver.data_dir)], check=True)


def test_when_its_node_is_killed_it_goes_on_with_another(new_stack: NewStack) -> None:
    stack = new_stack(nodes=3)
    stack.primary.start().run("pgbench", "-i", "-q", "-s", 1)
    stack.start()
    connected = serving(stack.pageserver)["connected_node"]
    (node,) = [node for node in stack.nodes if f"port={node.port}" in connected]
    running = load(stack.primary, 6)

    node.kill()

    assert running.wait(deadline_s=60) == 0
    pages, different = differences(stack.primary, stack.pageserver)
    assert not different
    assert pages > 1500
    assert stack.pageserver.status()["connected_node"] != connected


def test_a_cluster_of_another_shape_is_served_too(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server(
        checksums=True, segment_size_mb=1, allow_in_place_tablespaces=True, wal_compression="pglz"
    ).start()
    primary.query(f"create tablespace linked location '{primary.own(primary.folder / 'space')}'")
    primary.query("create tablespace inside location ''")
    for space in ("linked", "inside"):
        primary.query(f"create table in_{space} tablespace {space} as select generate_series(1, 20000) as v")
    primary.query("create unlogged table unlogged as select 1 as v")
    pageserver = new_pageserver(primary, layer_wal_bytes_max=1 << 20)
    pageserver.start()
    serving(pageserver)

    for round_ in range(3):
        primary.query("update in_linked set v = v + 1 where v % 3 = 0")
        primary.query("insert into in_inside select generate_series(1, 5000)")
        # What follows the record up to the segment's end is zeros; a stream may begin again after them.
        primary.query("select pg_switch_wal()")
        if round_ == 1:
            serving(pageserver)
            catch_up(primary, pageserver)
        pageserver.kill()
        pageserver.start()
    serving(pageserver)

    pages, different = differences(primary, pageserver)
    assert not different
    assert pages > 400
    rels = [
        rel for (rel, _, _) in pageserver.query("select * from relations(%s)", catch_up(primary, pageserver))
    ]
    assert len({rel.split("/")[0] for rel in rels}) == 4, "default, global and two tablespaces of our own"
