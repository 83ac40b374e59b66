"""Records of an extension's own resource manager: kept, told of, and in nobody's way but their pages'."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.e2e.pageserver_process import LOGGED, catch_up, masked
from tests.fix_pageserver import NewPageserver, serving
from tests.fix_pg import NewServer
from tools import debian, module
from tools.server import Server
from tools.stack import Program

SOURCE = Path(__file__).with_name("custom_rmgr.c")


@pytest.fixture
def primary(new_server: NewServer, bindir: Path, folder: Path) -> Server:
    """A server with the resource manager, and two tables."""
    server = new_server(autovacuum=False, fsync=False, wal_keep_size="1GB")
    try:
        built = module.build(SOURCE, folder / "custom_rmgr.so", bindir)
    except debian.DebianMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    server.configure(shared_preload_libraries=str(built)).start()
    for statement in (
        "create extension pageinspect",
        f"create function flip_block(regclass, int, bool) returns pg_lsn language c strict as '{built}'",
        "create table flipped as select repeat('x', 10) as v",
        "create table other as select 1 as v",
        "checkpoint",
    ):
        server.query(statement)
    return server


def page(pageserver: Program, relation: str, lsn: str) -> bytes:
    ((found,),) = pageserver.query("select get_raw_page(%s, 'main', 0, %s)", relation, lsn)
    return bytes(found)


def live_page(primary: Server) -> bytes:
    return bytes(primary.value("select get_raw_page('flipped', 0)"))


@pytest.mark.pg_features("pageinspect")
def test_a_page_is_unreadable_from_an_extensions_record_to_its_next_image(
    primary: Server, new_pageserver: NewPageserver
) -> None:
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    names = {name: rel for rel, name, *_ in primary.query(LOGGED)}
    flipped, other = names["flipped"], names["other"]
    primary.query("update flipped set v = v")
    primary.query("update other set v = v")
    before = catch_up(primary, pageserver)
    page_before = page(pageserver, flipped, before)

    record = primary.value("select flip_block('flipped', 0, false)::text")
    flip_lsn = catch_up(primary, pageserver)
    primary.query("update flipped set v = v || 'z'")
    primary.query("update other set v = v + 1")
    later = catch_up(primary, pageserver)
    primary.query("checkpoint")
    primary.query("update flipped set v = v || 'z'")
    image = catch_up(primary, pageserver)
    page_with_image = live_page(primary)
    in_full = primary.value("select flip_block('flipped', 0, true)::text")
    end = catch_up(primary, pageserver)
    page_in_full = live_page(primary)

    for _ in range(2):
        assert page(pageserver, flipped, before) == page_before
        for lsn in (flip_lsn, later):
            with pytest.raises(psycopg.Error) as refused:
                page(pageserver, flipped, lsn)
            for fact in ("rmgr=custom128", "info=0x20", f"page={flipped}", f"lsn={record}"):
                assert fact in str(refused.value)
            assert page(pageserver, other, lsn)
        for lsn, theirs in ((image, page_with_image), (end, page_in_full)):
            assert masked(page(pageserver, flipped, lsn), "heap", 0) == masked(theirs, "heap", 0)
        assert page_in_full != page_with_image
        assert pageserver.status()["state"] == "serving"
        assert pageserver.stop() == 0
        pageserver.start()
        serving(pageserver)

    primary.stop()
    shown = inspected_as_pg_waldump_does(primary)
    assert shown.count(b"rmgr: custom128") == 2
    for lsn in (record, in_full):
        high, low = lsn.split("/")
        assert f"lsn: {high}/{low:0>8}, ".encode() in shown


def inspected_as_pg_waldump_does(primary: Server) -> bytes:
    """The text of the extension's records, in which both agree, as in all other forms."""
    shown = []
    for options in (["-r", "custom128"], ["-b"], ["--stats"], ["--stats=record"], ["-r", "custom128", "-w"]):
        target = ["-p", str(primary.data_dir / "pg_wal"), "-s", "0/1000000", *options]
        ours = [sys.executable, "-m", "walproxy", "inspect", "--format=pg_waldump", *target]
        theirs = [str(primary.bindir / "pg_waldump"), *target]
        outputs = [subprocess.run(command, capture_output=True, check=False) for command in (ours, theirs)]
        assert outputs[0].stdout == outputs[1].stdout, options
        assert (outputs[0].stderr, outputs[0].returncode) == (outputs[1].stderr, outputs[1].returncode)
        shown.append(outputs[0].stdout)
    return shown[0]
