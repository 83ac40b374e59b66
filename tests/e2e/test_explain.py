"""What `walproxy inspect` makes of WAL, against what the server and its client know."""

import json
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from tools.server import Server
from tools.wait import until
from walproxy.cli import app

PAGE = 8192
ROWS = 3000


@dataclass(frozen=True, slots=True)
class Story:
    """WAL of a server that is stopped, and what its client and its catalogs knew before."""

    wal: Path
    names: Path
    waldump: Path
    conninfo: str
    files: dict[str, str]  # Path by database.schema.relation.
    commits: dict[int, datetime]
    told: dict[str, Any]

    def pg_waldump(self, *options: str) -> list[str]:
        done = subprocess.run(
            [self.waldump, "-p", self.wal, "-s", "0/1000000", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def story(module_server: Server) -> Story:
    server, folder = module_server, module_server.folder.parent
    server.configure(track_commit_timestamp=True, wal_keep_size="4GB", autovacuum=False, fsync=False)
    told = live(server.start())
    saved = folder / "names.json"
    done = walproxy("names", server.conninfo(), "--to", saved)
    assert done.exit_code == 0, done.stderr
    files = {
        f"{'' if shared else database + '.'}{schema}.{name}": path
        for database in ("postgres", "shop")
        for shared, schema, name, path in server.query(
            "select relisshared, relnamespace::regnamespace::text, relname, pg_relation_filepath(oid) "
            "from pg_class where relkind in ('r', 'i', 'S', 'm') and relpersistence <> 't'",
            dbname=database,
        )
    }
    commits = dict(server.query("select xid::text::int8, timestamp from pg_last_committed_xact()"))
    for name, xid in told["xids"].items():
        if name != "undone":
            commits[xid] = server.value("select pg_xact_commit_timestamp(%s::text::xid)", xid)
    server.query("select pg_switch_wal()")
    server.query("select pg_create_restore_point('here')")
    server.stop()
    shutil.copytree(server.data_dir / "pg_wal", folder / "wal")
    page = (server.data_dir / files["shop.public.item"]).read_bytes()[:PAGE]
    told["page_lsn"] = "{:X}/{:X}".format(*struct.unpack_from("<II", page))
    return Story(folder / "wal", saved, server.bindir / "pg_waldump", server.conninfo(), files, commits, told)


def turn_full_page_writes(server: Server, *, on: bool) -> None:
    """The checkpointer makes the switch in its own time after a reload; a checkpoint says what holds."""
    server.reload(full_page_writes=on)

    def is_so() -> bool:
        server.query("checkpoint")
        return bool(server.value("select full_page_writes from pg_control_checkpoint()")) is on

    until(is_so, what="full_page_writes is switched")


def live(server: Server) -> dict[str, Any]:
    """What happens to the server: transactions whose numbers and rows are known; WAL packed in three ways."""
    server.query("create database shop")
    told: dict[str, Any] = {"xids": {}, "places": {}}
    with server.connect(dbname="shop") as connection:

        def run(*statements: str, name: str = "", end: str = "commit") -> None:
            connection.execute("begin")
            for statement in statements:
                connection.execute(statement.encode())
            if name:
                [(xid,)] = connection.execute("select txid_current()").fetchall()
                told["xids"][name] = xid
            connection.execute(end.encode())

        def here(name: str) -> None:
            [(told["places"][name],)] = connection.execute(
                "select pg_current_wal_insert_lsn()::text"
            ).fetchall()

        run(
            "create table item (id int primary key, n int, padding text)",
            "create table note (id int, body text)",
            "create table meter (id int, n int, padding text) with (fillfactor = 50)",
            f"insert into meter select g, 0, repeat('x', 60) from generate_series(1, {ROWS}) g",
            "alter table note alter body set storage external",
        )
        run(
            f"insert into item select g, 0, repeat('x', 60) from generate_series(1, {ROWS}) g",
            name="inserted",
        )
        run("insert into note select 1, repeat(md5('a'), 1000)", name="toasted")
        run("update item set n = 1 where id <= 40", "delete from item where id > 2990", name="changed")
        run(
            "insert into item select g, 0, '' from generate_series(9001, 9007) g",
            name="undone",
            end="rollback",
        )
        run(
            "update item set n = 2 where id = 1",
            "savepoint a",
            "update item set n = 2 where id = 2",
            "release savepoint a",
            name="nested",
        )
        connection.execute("vacuum (freeze) item")
        connection.execute("vacuum (freeze) meter")
        connection.execute("delete from item where id = 3")
        connection.execute("checkpoint")
        here("spread")
        connection.execute("update meter set n = n + 1 where id % 7 = 0")
        here("spread_end")
        turn_full_page_writes(server, on=False)
        here("plain")
        connection.execute("update meter set n = n + 1 where id % 7 = 1")
        here("plain_end")
        server.configure(wal_compression="pglz")
        turn_full_page_writes(server, on=True)
        here("packed")
    with server.connect(dbname="shop") as connection:
        connection.execute("update item set n = n + 1 where id % 50 = 0")
        [(told["places"]["packed_end"],)] = connection.execute(
            "select pg_current_wal_insert_lsn()::text"
        ).fetchall()
        connection.execute("delete from note")
        connection.execute("vacuum note")
        connection.execute("checkpoint")
    return told


def walproxy(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def inspect(story: Story, *arguments: str | Path) -> str:
    done = walproxy("inspect", story.wal, "--names", story.names, *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def rows(story: Story, *arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(story, *arguments, "--json").splitlines()]


def lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def relation(story: Story, name: str) -> str:
    """As WAL calls it."""
    place, *database, number = story.files[name].split("/")
    return f"1663/{database[0]}/{number}" if place == "base" else f"1664/0/{number}"


def waldump_totals(lines: list[str]) -> dict[str, list[int]]:
    """Records, bytes without images and bytes of images, by kind, of ``--stats``."""
    totals = {}
    for line in lines:
        if row := re.match(r"(\S+)\s+(\d+) \(.{6}\)\s+(\d+) \(.{6}\)\s+(\d+) \(", line):
            totals[row[1]] = [int(number) for number in row.groups()[1:]]
    return {kind: numbers for kind, numbers in totals.items() if numbers[0]}


def test_every_relation_of_every_database_has_its_name(story: Story) -> None:
    saved = json.loads(story.names.read_text())["relations"]
    known = {
        f"{database + '.' if database else ''}{schema}.{name}": f"{spc}/{db}/{rel}"
        for spc, db, rel, database, schema, name, _, _ in saved
    }

    named = {name for name in story.files if not name.split(".")[-2].startswith("pg_toast")}

    assert len(named) > 300
    assert {name: known[name] for name in named} == {name: relation(story, name) for name in named}
    toast = {owner for *_, kind, owner in saved if kind == "t"}
    assert "public.note" in toast


def test_records_show_names_and_are_chosen_by_them(story: Story) -> None:
    item = relation(story, "shop.public.item")

    by_name = rows(story, "-R", "shop.public.item")

    assert by_name == rows(story, "-R", item)
    assert {
        block["name"] for record in by_name for block in record["blocks"] if block["relation"] == item
    } == {"shop.public.item"}
    assert any(
        block.get("name") == "shop.public.note (toast)"
        for record in rows(story, "-r", "Heap")
        for block in record["blocks"]
    )
    assert "shop.public.item " in inspect(story, "-R", "shop.item", "-n", "3")


def test_names_of_another_cluster_are_refused(story: Story, tmp_path: Path) -> None:
    saved = json.loads(story.names.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(saved | {"system_id": saved["system_id"] + 1}))
    letter = tmp_path / "letter"
    letter.write_text("dear reader")
    for names, says in (
        (other, "the names are of another cluster"),
        (letter, "no file that `walproxy names` saved"),
        (tmp_path / "nothing", "no such file of names"),
    ):
        done = walproxy("inspect", story.wal, "--names", names, "-n", "1")
        assert done.exit_code == 1
        assert says in done.stderr
    done = walproxy("inspect", story.wal, "--names", story.names, "-R", "shop.public.nothing")
    assert "no relation of that name is known" in done.stderr


def test_a_parquet_file_holds_what_json_lines_hold(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "wal.parquet"
    lines = rows(story)

    assert inspect(story, "--to", path) == ""

    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == len(lines) > 10_000
    for row, line in zip(table.to_pylist(), lines, strict=True):
        assert [row["lsn"], row["end_lsn"], row["prev_lsn"]] == [
            lsn(line[key]) for key in ("lsn", "end", "prev")
        ]
        for key in ("rmgr", "record", "length", "total_length", "description"):
            assert row[key] == line[key]
        assert (row["xid"] or 0, row["origin"], row["toplevel_xid"]) == (
            line["xid"], line.get("origin"), line.get("toplevel_xid"),
        )  # fmt: skip
        assert row["image_length"] == line["total_length"] - line["length"]
        assert (row["time"] is not None) == (line["record"] in {"COMMIT", "ABORT"})
        for block, other in zip(row["blocks"], line["blocks"], strict=True):
            assert (block["block_id"], block["name"]) == (other["id"], other.get("name"))
            for key in ("relation", "fork", "block", "will_init", "data_length"):
                assert block[key] == other[key]
            image = other.get("image", {})
            for mine, theirs in (
                ("image_length", "length"), ("image_applies", "apply"), ("hole_offset", "hole_offset"),
                ("hole_length", "hole_length"), ("compression", "compression"),
            ):  # fmt: skip
                assert block[mine] == image.get(theirs)
    with duckdb.connect() as connection:
        [(count,)] = connection.execute(f"select count(*) from '{path}', unnest(blocks)").fetchall()
    assert count == sum(len(line["blocks"]) for line in lines)


def test_queries_count_what_pg_waldump_counts(story: Story) -> None:
    found = rows(
        story,
        "--sql",
        "select rmgr || '/' || record as kind, count(*) as n, sum(length)::int8 as rec, sum(image_length)::int8 as fpi "
        "from records group by kind",
    )

    theirs = waldump_totals(story.pg_waldump("--stats=record"))
    assert {row["kind"]: [row["n"], row["rec"], row["fpi"]] for row in found} == theirs

    [ended] = rows(
        story,
        "--sql",
        f"select time from records where xid = {story.told['xids']['changed']} and time is not null",
    )
    assert datetime.fromisoformat(ended["time"]) == story.commits[story.told["xids"]["changed"]].astimezone(
        UTC
    )


def test_a_query_may_name_its_tables_more_than_once(story: Story) -> None:
    changed = story.told["xids"]["changed"]

    found = rows(
        story,
        "--sql",
        "select b.name, count(distinct r.lsn) as records, min(pg_lsn(r.lsn)) as first from records r "
        "join blocks b using (lsn) "
        f"where r.xid = {changed} and b.name like 'shop.%' and lsn(pg_lsn(r.lsn)) = r.lsn "
        "and (select count(*) from records) = (select count(*) from records) group by b.name order by b.name",
    )

    lines = [line for line in rows(story, "-x", str(changed)) if line["blocks"]]
    assert [row["name"] for row in found] == ["shop.public.item", "shop.public.item_pkey"]
    of_item = [line for line in lines if line["blocks"][0]["name"] == "shop.public.item"]
    assert found[0] == {"name": "shop.public.item", "records": len(of_item), "first": of_item[0]["lsn"]}
    assert "50" in inspect(story, "--sql", "select count(*) from (from records limit 50)")

    done = walproxy("inspect", story.wal, "--sql", "select nothing from records")
    assert done.exit_code == 1
    assert "the query fails" in done.stderr


def test_a_query_on_damaged_wal_says_so(story: Story, tmp_path: Path) -> None:
    segment = min(path for path in story.wal.iterdir() if re.fullmatch(r"[0-9A-F]{24}", path.name))
    wal = bytearray(segment.read_bytes())
    wal[300_000] ^= 4
    (tmp_path / segment.name).write_bytes(wal)

    done = walproxy("inspect", tmp_path / segment.name, "--sql", "select count(*) from records")

    assert (done.exit_code, done.stdout) == (3, "")
    assert "damaged wal" in done.stderr


def test_the_history_of_a_page_ends_where_the_page_says(story: Story) -> None:
    history = rows(story, "--page", "shop.public.item/0")

    named = rows(story, "-R", "shop.public.item", "-B", "0", "-F", "main")
    assert [row["lsn"] for row in history if row["effect"] in {"image", "init", "change"}] == [
        row["lsn"] for row in named
    ]
    assert history[0]["effect"] == "create"
    assert history[1]["effect"] == "init"
    assert history[-1]["end"] == story.told["page_lsn"]
    images = [row for row in history if row["effect"] == "image"]
    assert all(block["image"]["apply"] for row in images for block in row["blocks"] if block["block"] == 0)
    assert images
    assert "replaced by its image" in inspect(story, "--page", "shop.item/0", "-w", "-n", "2")


def test_the_history_of_a_visibility_map_tells_of_changes_that_records_do_not_name(story: Story) -> None:
    history = rows(story, "--page", "shop.public.item/0", "--fork", "vm")

    # Minor releases of 2026 began to name the map's page.
    named = [row for row in history if any(block["fork"] == "vm" for block in row["blocks"])]
    deletes = [row for row in history if row["record"] == "DELETE"]
    assert deletes
    assert {row["effect"] for row in history if row not in named} <= {"create", "implied", "truncate"}
    assert {row["effect"] for row in deletes} <= {"implied", "change"}
    assert all((row["effect"] == "implied") == (row not in named) for row in deletes)


def test_a_page_that_was_cut_off_says_when(story: Story) -> None:
    history = rows(story, "--page", "shop.public.note/0")

    assert (history[-1]["effect"], history[-1]["record"]) == ("truncate", "TRUNCATE")


def transactions(story: Story, *arguments: str) -> dict[int, dict[str, Any]]:
    return {row["xid"]: row for row in rows(story, "--transactions", *arguments)}


def test_transactions_end_when_and_as_the_server_says(story: Story) -> None:
    found = transactions(story)

    assert len(story.commits) >= 4
    for xid, time in story.commits.items():
        assert found[xid]["state"] == "committed"
        assert datetime.fromisoformat(found[xid]["time"]) == time.astimezone(UTC)
    assert found[story.told["xids"]["undone"]]["state"] == "aborted"


def test_transactions_changed_what_their_client_changed(story: Story) -> None:
    found = transactions(story)

    def changed(name: str, relation: str) -> tuple[int, int, int]:
        [of] = [row for row in found[story.told["xids"][name]]["relations"] if row.get("name") == relation]
        return of["inserted"], of["updated"], of["deleted"]

    assert changed("inserted", "shop.public.item") == (ROWS, 0, 0)
    assert changed("changed", "shop.public.item") == (0, 40, 10)
    assert changed("undone", "shop.public.item") == (7, 0, 0)
    assert changed("nested", "shop.public.item") == (0, 2, 0)
    assert changed("toasted", "shop.public.note") == (1, 0, 0)
    assert changed("toasted", "shop.public.note (toast)")[0] > 10
    assert len(found[story.told["xids"]["nested"]]["subxids"]) == 1


def test_transactions_take_the_wal_that_pg_waldump_counts(story: Story) -> None:
    for name in ("inserted", "toasted", "changed", "undone"):
        xid = story.told["xids"][name]

        [ours] = transactions(story, "-x", str(xid)).values()

        theirs = list(waldump_totals(story.pg_waldump("--stats", "-x", str(xid))).values())
        records, record_bytes, image_bytes = (sum(numbers) for numbers in zip(*theirs, strict=True))
        assert (ours["records"], ours["bytes"]) == (records, record_bytes + image_bytes)
        assert ours["image_bytes"] == image_bytes


def test_transactions_are_found_by_time_relation_and_subtransaction(story: Story) -> None:
    every = transactions(story)
    nested = every[story.told["xids"]["nested"]]
    time = datetime.fromisoformat(nested["time"])

    near = transactions(story, "--at", nested["time"], "--within", "0.05")

    assert nested["xid"] in near
    limit = timedelta(seconds=0.05)
    assert set(near) == {
        xid
        for xid, row in every.items()
        if row["time"] and abs(datetime.fromisoformat(row["time"]) - time) <= limit
    }
    assert set(transactions(story, "-x", str(nested["subxids"][0]))) == {nested["xid"]}
    on_note = transactions(story, "-R", "shop.public.note")
    assert story.told["xids"]["toasted"] in on_note
    assert story.told["xids"]["nested"] not in on_note
    assert "shop.public.item ~2" in inspect(story, "--transactions", "-x", str(nested["xid"]))


def usage(story: Story, start: str = "", end: str = "") -> dict[str, list[dict[str, Any]]]:
    span = [
        *(("-s", story.told["places"][start]) if start else ()),
        *(("-e", story.told["places"][end]) if end else ()),
    ]
    found: dict[str, list[dict[str, Any]]] = {"relation": [], "rmgr": [], "images": [], "setting": []}
    for row in rows(story, "--usage", *span):
        found[row["by"]].append(row)
    return found


def test_usage_adds_up_to_what_pg_waldump_counts(story: Story) -> None:
    found = usage(story)

    theirs = waldump_totals(story.pg_waldump("--stats"))
    keys = ("records", "record_bytes", "image_bytes")
    assert {row["rmgr"]: [row[key] for key in keys] for row in found["rmgr"]} == theirs
    for key in keys:
        assert sum(row[key] for row in found["relation"]) == sum(row[key] for row in found["rmgr"])
    assert sum(row["image_bytes"] for row in found["images"]) == sum(
        row["image_bytes"] for row in found["rmgr"]
    )
    of_item = next(row for row in found["relation"] if row.get("name") == "shop.public.item")
    images = [
        block["image"]["length"]
        for record in rows(story, "-R", "shop.public.item")
        for block in record["blocks"]
        if block.get("name") == "shop.public.item" and "image" in block
    ]
    assert (of_item["images"], of_item["image_bytes"]) == (len(images), sum(images))
    assert "shop.public.item" in inspect(story, "--usage")


def test_pglz_makes_of_images_what_the_server_made_of_them(story: Story) -> None:
    packed = usage(story, "packed", "packed_end")

    images = sum(row["images"] for row in packed["images"])
    assert images > 10
    saving = next(row for row in packed["setting"] if row["setting"] == "wal_compression = pglz")
    assert saving["basis"].startswith("measured")
    assert saving["bytes"] == 0

    spread = usage(story, "spread", "spread_end")
    savings = {row["setting"]: row["bytes"] for row in spread["setting"]}
    assert 0 < savings["wal_compression = pglz"] < sum(row["image_bytes"] for row in spread["images"])
    assert savings["wal_compression = zstd"] > savings["wal_compression = pglz"]


def test_without_full_page_writes_the_wal_is_about_as_small_as_foretold(story: Story) -> None:
    with_images, without = usage(story, "spread", "spread_end"), usage(story, "plain", "plain_end")

    def total(found: dict[str, list[dict[str, Any]]]) -> int:
        return sum(row["record_bytes"] + row["image_bytes"] for row in found["rmgr"])

    saving = next(row for row in with_images["setting"] if row["setting"].startswith("full_page_writes"))
    assert "estimate" in saving["basis"]
    assert not [row for row in without["images"] if row["reason"] == "full_page_writes"]
    foretold = total(with_images) - saving["bytes"]
    assert total(with_images) > 2 * total(without)
    assert abs(foretold - total(without)) < 0.25 * total(without)


def test_questions_do_not_mix(story: Story) -> None:
    for arguments, says in (
        (("--usage", "--transactions"), "only one of these options may be given"),
        (("--at", "2026-01-01"), "option --at requires option --transactions"),
        (("--transactions", "--at", "noon"), "not a time"),
        (("--transactions", "-r", "Heap"), "it takes no filter of records"),
        (("--page", "shop.public.item"), "a page is relation/block"),
        (("--page", "1663/5/1/0", "-B", "3"), "option --block requires option --relation"),
        (("--usage", "--stats"), "do not go with this option"),
        (("--to", "wal.csv"), "no such kind of file"),
    ):
        done = walproxy("inspect", story.wal, "--names", story.names, *arguments)
        assert (done.exit_code, done.stdout) == (1, ""), done.stderr
        assert says in done.stderr
