"""The small SQL, the values in it, and how a call finds its function."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walproxy.wire import datum, sql
from walproxy.wire.datum import BY_OID, Type, array_of, coerce
from walproxy.wire.errors import SqlError
from walproxy.wire.function import Argument, Column, Function, resolve
from walproxy.wire.lsn import Lsn


async def nothing(*_: object) -> Sequence[Sequence[Any]]:
    return []


PAGE = Function(
    "page",
    (
        Argument("rel", datum.TEXT),
        Argument("block", datum.INT8),
        Argument("lsn", datum.PG_LSN, is_optional=True),
    ),
    (Column("page", datum.BYTEA),),
    nothing,
)
PAGES = Function(
    "pages",
    (Argument("blocks", datum.INT8_ARRAY), Argument("lsns", datum.PG_LSN_ARRAY, is_optional=True)),
    (Column("blkno", datum.INT8), Column("page", datum.BYTEA)),
    nothing,
    is_set=True,
)
FLAG = Function(
    "flag", (Argument("on", datum.BOOL), Argument("share", datum.FLOAT8)), (Column("x", datum.BOOL),), nothing
)
WORDS = ["SELECT", "page", "(", ")", ",", "'a'", "1", "::int8", "[", "]", "$1", "ARRAY", "=>", ";", "* FROM"]
FUNCTIONS = {"page": PAGE, "pages": PAGES, "flag": FLAG}


def values(text: str, parameters: Sequence[object] = (), oids: Sequence[int] = ()) -> list[Any] | None:
    statement = sql.parse(text)
    assert isinstance(statement, sql.Select)
    return resolve(statement, FUNCTIONS, oids).values(parameters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT page('1/2/3', 4)", ["1/2/3", 4, None]),
        ("select pg_catalog.page ( 'it''s', 4, '0/2A' ) ;", ["it's", 4, Lsn(42)]),
        ('SELECT "page"(\'r\', 4) AS "X"', ["r", 4, None]),
        ("SELECT page('r', 5000000000)", ["r", 5_000_000_000, None]),
        ("SELECT page('r', -1)", ["r", -1, None]),
        ("SELECT page('r', '7')", ["r", 7, None]),
        ("SELECT page('r', 4::int4::bigint, pg_lsn '0/1')", ["r", 4, Lsn(1)]),
        ("SELECT page('r', CAST('4' AS integer), NULL)", ["r", 4, None]),
        ("SELECT page(lsn => '0/1', rel => 'r', block := 4)", ["r", 4, Lsn(1)]),
        ("SELECT page('r', block => 4) -- why not", ["r", 4, None]),
        ("SELECT /* a \n comment */ page(('r'), (4))", ["r", 4, None]),
        ("SELECT page(NULL, 4)", None),
        ("SELECT * FROM pages(ARRAY[1, 2, NULL])", [[1, 2, None], None]),
        ("SELECT * FROM pages('{1,2}', '{0/1,16/B374D848}') AS p", [[1, 2], [Lsn(1), Lsn(0x16_B374_D848)]]),
        ("SELECT * FROM pages(ARRAY[]::int8[], ARRAY['0/1'::pg_lsn])", [[], [Lsn(1)]]),
        ("SELECT * FROM pages('{}')", [[], None]),
        ("SELECT flag(true, 1)", [True, 1.0]),
        ("SELECT flag('off', 1.5e3)", [False, 1500.0]),
        ("SELECT flag(false::bool, '-Infinity'::double precision)", [False, -math.inf]),
    ],
)
def test_a_call_gets_these_values(text: str, expected: list[Any] | None) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("SELECT page('r')", "42883"),
        ("SELECT page('r', 1, NULL, 2)", "42883"),
        ("SELECT page('r', 1, rel => 'again')", "42883"),
        ("SELECT page('r', 1, nothing => 2)", "42883"),
        ("SELECT page(rel => 'r', 1)", "42601"),
        ("SELECT other()", "42883"),
        ("SELECT pages('{1}')", "0A000"),
        ("SELECT page('r', 'x')", "22P02"),
        ("SELECT page('r', '1_0')", "22P02"),
        ("SELECT page('r', '9223372036854775808')", "22003"),
        ("SELECT page('r', 9223372036854775808)", "22003"),
        ("SELECT page('r', 1, '0/')", "22P02"),
        ("SELECT page('r', 1.5)", "42804"),
        ("SELECT page(1, 1)", "42804"),
        ("SELECT page('r', ARRAY[1])", "42804"),
        ("SELECT page('r', 1::wonder)", "42704"),
        ("SELECT * FROM pages('{1')", "22P02"),
        ("SELECT * FROM pages('{{1}}')", "22P02"),
        ("SELECT flag('maybe', 1)", "22P02"),
        ("SELECT page('r', block)", "0A000"),
        ("SELECT page('r', other(1))", "0A000"),
        ("SELECT page('r', 1 + 1)", "42601"),
        ("SELECT page('r', 1) FROM t", "0A000"),
        ("SELECT page('r', 1), page('r', 2)", "0A000"),
        ("SELECT page('r', $0)", "42P02"),
        ("SELECT page('r', $70000)", "42P02"),
        ("SELECT page('r', $2)", "42P18"),
        ("SELECT page(" + "(" * 50, "0A000"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(text: str, sqlstate: str) -> None:
    with pytest.raises(SqlError) as caught:
        values(text)
    assert caught.value.sqlstate == sqlstate


def test_parameters_take_the_type_of_their_argument_unless_declared() -> None:
    statement = sql.parse("SELECT page($1, $3, $2::text)")
    assert isinstance(statement, sql.Select)

    call = resolve(statement, FUNCTIONS, [0, 0, 23])
    assert [t.name for t in call.parameters] == ["text", "text", "integer"]
    assert call.values(["r", "0/2", 5]) == ["r", 5, Lsn(2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", sql.Empty()),
        (" ; ", sql.Empty()),
        ("SHOW walproxy.status;", sql.Show("walproxy.status")),
        ("show Server_Version", sql.Show("server_version")),
        ("BEGIN", sql.Transaction("BEGIN")),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", sql.Transaction("BEGIN")),
        ("begin isolation level serializable read write deferrable;", sql.Transaction("BEGIN")),
        ("COMMIT", sql.Transaction("COMMIT")),
        ("END WORK", sql.Transaction("COMMIT")),
        ("ABORT", sql.Transaction("ROLLBACK")),
        ("SET search_path = public, 'x'", sql.Ignored("SET")),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", sql.Ignored("SET")),
        ("RESET ALL", sql.Ignored("RESET")),
        ("DISCARD ALL", sql.Ignored("DISCARD ALL")),
        ("DEALLOCATE ALL", sql.Deallocate(None)),
        ("DEALLOCATE PREPARE _pg3_0", sql.Deallocate("_pg3_0")),
    ],
)
def test_other_statements(text: str, expected: sql.Statement) -> None:
    assert sql.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("INSERT INTO t VALUES (1)", "0A000"),
        ("SELECT 1", "42601"),
        ("SELECT version", "0A000"),
        ("SELECT * FROM t", "0A000"),
        ("BEGIN; COMMIT", "0A000"),
        ("ROLLBACK TO SAVEPOINT x", "0A000"),
        ("COMMIT PREPARED 'x'", "0A000"),
        ("SHOW", "42601"),
        ("SHOW a b", "42601"),
        ("SET", "42601"),
        ("SELECT", "42601"),
        ("SELECT f(", "42601"),
        ("SELECT f(1,)", "42601"),
        ("SELECT f('open", "42601"),
        ("%", "42601"),
    ],
)
def test_what_is_not_served_is_refused(text: str, sqlstate: str) -> None:
    with pytest.raises(SqlError) as caught:
        sql.parse(text)
    assert caught.value.sqlstate == sqlstate


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_no_text_does_worse_than_a_refusal(text: str) -> None:
    try:
        statement = sql.parse(text)
        if isinstance(statement, sql.Select):
            resolve(statement, FUNCTIONS, []).values([1, 2, 3])
    except SqlError:
        return


def of_type(kind: Type) -> st.SearchStrategy[Any]:
    if kind.element is not None:
        return st.lists(st.none() | of_type(kind.element), max_size=5)
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
    return {
        "boolean": st.booleans(),
        "bytea": st.binary(max_size=30),
        "smallint": st.integers(-(1 << 15), (1 << 15) - 1),
        "integer": st.integers(-(1 << 31), (1 << 31) - 1),
        "bigint": st.integers(-(1 << 63), (1 << 63) - 1),
        "oid": st.integers(0, (1 << 32) - 1),
        "double precision": st.floats(allow_nan=False),
        "pg_lsn": st.integers(0, (1 << 64) - 1).map(Lsn),
    }.get(kind.name, text)


@pytest.mark.parametrize("kind", BY_OID.values(), ids=lambda kind: kind.name)
@given(data=st.data())
def test_values_come_back_in_text_and_binary(kind: Type, data: st.DataObject) -> None:
    value = data.draw(of_type(kind))

    for form in (datum.TEXT_FORMAT, datum.BINARY_FORMAT):
        assert kind.decode(kind.encode(value, form), form) == value
    assert kind.decode(None, 0) is None
    assert kind.encode(None, 1) is None


@given(st.sampled_from(list(BY_OID.values())), st.binary(max_size=60), st.integers(0, 1))
def test_no_value_does_worse_than_a_refusal(kind: Type, data: bytes, form: int) -> None:
    try:
        kind.decode(data, form)
    except SqlError:
        return


def test_an_array_that_lies_about_its_length_takes_no_memory() -> None:
    lying = b"\0\0\0\1\0\0\0\0\0\0\0\x14\x7f\xff\xff\xff\0\0\0\1"
    with pytest.raises(SqlError):
        datum.INT8_ARRAY.decode(lying, datum.BINARY_FORMAT)


def test_the_text_forms_are_those_of_postgres() -> None:
    assert datum.BYTEA.encode(b"\x01\xff", 0) == b"\\x01ff"
    assert datum.BOOL.encode(value=True, form=0) == b"t"
    assert datum.PG_LSN.encode(Lsn(0x16_B374_D848), 0) == b"16/B374D848"
    assert (
        datum.TEXT_ARRAY.encode(["a b", "", None, 'q"\\', "NULL", "x"], 0)
        == rb'{"a b","",NULL,"q\"\\","NULL",x}'
    )
    assert datum.TEXT_ARRAY.parse(' { a , "b,c" , null , "null" } ') == ["a", "b,c", None, "null"]


def test_integers_of_any_width_go_where_they_fit() -> None:
    assert coerce([1, 2], array_of(datum.INT2), datum.INT8_ARRAY) == [1, 2]
    with pytest.raises(SqlError, match="out of range"):
        coerce(1 << 40, datum.INT8, datum.INT4)
