"""Names of relations: kept, found, put beside numbers."""

from pathlib import Path

import pytest

from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Named, Names
from walproxy.inspect.naming import naming
from walproxy.inspect.page import parse_page, parse_relation

NAMES = Names.of(
    [
        Named((1663, 5, 100), "shop", "public", "item", "r"),
        Named((1663, 5, 101), "shop", "public", 'odd "name".x', "r"),
        Named((1663, 5, 102), "shop", "pg_toast", "pg_toast_100", "t", "public.item"),
        Named((1663, 5, 103), "shop", "pg_toast", "pg_toast_100_index", "i", "public.item"),
        Named((1663, 5, 104), "shop", "old", "twin", "r"),
        Named((1663, 5, 105), "shop", "new", "twin", "r"),
        Named((1664, 0, 1262), "", "pg_catalog", "pg_database", "r"),
    ],
    system_id=77,
    unread={"template0": "connections are not allowed"},
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(NAMES.dump())

    assert Names.load(path) == NAMES
    assert Names.of([], system_id=0, unread={}).dump().count("\n") > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"walproxy_names": 1}',
        '{"walproxy_names": 1, "system_id": 1, "unread": {}, "relations": [[1]]}',
    ],
)
def test_what_is_no_file_of_names_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)

    with pytest.raises(TargetUnusable, match="no file that `walproxy names` saved"):
        Names.load(path)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(NAMES.dump().replace('"walproxy_names": 1', '"walproxy_names": 2'))

    with pytest.raises(TargetUnusable, match="another version"):
        Names.load(path)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("shop.public.item", 100),
        ("shop.item", 100),
        ('shop.public.odd "name".x', 101),
        ("shop.public.item (toast)", 102),
        ("shop.pg_toast.pg_toast_100", 102),
        ("shop.public.item (toast index)", 103),
        ("shop.new.twin", 105),
        ("pg_catalog.pg_database", 1262),
        ("pg_database", 1262),
    ],
)
def test_a_relation_is_found_by_what_people_call_it(text: str, number: int) -> None:
    assert NAMES.find(text)[2] == number
    assert parse_page(f"{text}/7", NAMES) == (NAMES.find(text), 7)


def test_a_name_of_two_relations_is_refused_with_both() -> None:
    with pytest.raises(TargetUnusable, match=r"found=shop\.new\.twin, shop\.old\.twin"):
        NAMES.find("shop.twin")


def test_a_page_may_be_given_in_numbers() -> None:
    assert parse_page("1663/5/16384/9", None) == ((1663, 5, 16384), 9)
    assert parse_relation("1663/5/16384", NAMES) == (1663, 5, 16384)


@pytest.mark.parametrize(
    "text", ["", "7", "shop.public.item", "shop.public.item/x", "shop.public.item/4294967295"]
)
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(TargetUnusable, match="a page is relation/block"):
        parse_page(text, NAMES)


def test_without_names_a_name_says_what_is_missing() -> None:
    with pytest.raises(TargetUnusable, match="--names"):
        parse_relation("shop.public.item", None)


def test_newer_names_win_and_two_clusters_do_not_mix() -> None:
    newer = Names.of([Named((1663, 5, 100), "shop", "public", "thing", "r")], system_id=77, unread={})

    assert NAMES.with_newer(newer).label((1663, 5, 100)) == "shop.public.thing"
    assert NAMES.with_newer(newer).label((1663, 5, 104)) == "shop.old.twin"
    with pytest.raises(TargetUnusable, match="two clusters"):
        NAMES.with_newer(Names(78))


def test_names_stand_beside_numbers_and_nowhere_else() -> None:
    text = rb'"description":"\"relation\":\"1663/5/100\""'
    line = b"{" + text + b',"blocks":[{"relation":"1663/5/101"},{"relation":"1663/5/9"}]}'

    named = naming(NAMES)(line)

    name = rb'"name":"shop.public.odd \"name\".x"'
    assert named == line.replace(b'"1663/5/101"', b'"1663/5/101",' + name)
    assert naming(None)(line) == line
