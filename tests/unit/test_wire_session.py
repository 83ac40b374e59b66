"""The session after authentication: every pair of state and message, and conversations as bytes."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from walproxy.wire import datum, messages, replication
from walproxy.wire.errors import RemoteProtocolError, SqlError
from walproxy.wire.frames import FrameBuffer
from walproxy.wire.function import Argument, Column, Function
from walproxy.wire.messages import BACKEND, FRONTEND, Message, decode
from walproxy.wire.session import ACTIONS, Action, Replicate, Run, Session, Show, State


async def unused(*_: object) -> Sequence[Sequence[Any]]:
    raise AssertionError


DOUBLE = Function("double", (Argument("x", datum.INT8),), (Column("twice", datum.INT8),), unused)
COUNT = Function("count", (Argument("upto", datum.INT8),), (Column("n", datum.INT8),), unused, is_set=True)
FUNCTIONS = {"double": DOUBLE, "count": COUNT}
SAMPLE: dict[type[Message], Callable[[], Message]] = {
    messages.Query: lambda: messages.Query("SELECT double(1)"),
    messages.Parse: lambda: messages.Parse("s", "SELECT double($1)"),
    messages.Bind: lambda: messages.Bind("", "s", (), (b"1",)),
    messages.Describe: lambda: messages.Describe("S", "s"),
    messages.Close: lambda: messages.Close("S", "s"),
    messages.Execute: lambda: messages.Execute(""),
    messages.FunctionCall: lambda: messages.FunctionCall(b""),
    messages.Password: lambda: messages.Password(b""),
    messages.CopyData: lambda: messages.CopyData(b""),
    messages.CopyFail: lambda: messages.CopyFail(""),
}


def new(*, is_replication: bool = False) -> Session:
    return Session(FUNCTIONS, is_replication=is_replication)


def said(answer: object) -> list[Message]:
    """The messages in an answer."""
    assert isinstance(answer, bytes)
    buffer = FrameBuffer(length_max=1 << 20)
    buffer.feed(answer)
    found = []
    while (frame := buffer.next_frame()) is not None:
        found.append(decode(frame, BACKEND))
    return found


def kinds(answer: object) -> str:
    return "".join(message.tag.decode() for message in said(answer))


def error_of(answer: object) -> dict[str, str]:
    (error,) = [message for message in said(answer) if isinstance(message, messages.ErrorResponse)]
    return dict(error.fields)


def run(session: Session, message: Message) -> bytes:
    """As the driver does, with functions that double and count."""
    work = session.on_message(message)
    match work:
        case bytes():
            return work
        case Run(call, arguments):
            x = arguments[0]
            rows = [(2 * x,)] if call.function is DOUBLE else [(n,) for n in range(x)]
            return session.complete(rows)
        case Show(name):
            return session.complete([(name.upper(),)])
        case Replicate():
            return session.complete([])


PAIRS = list(itertools.product((State.READY, State.SKIPPING, State.CLOSED), FRONTEND.values()))


@pytest.mark.parametrize(("state", "kind"), PAIRS, ids=str)
def test_every_message_in_every_state(state: State, kind: type[Message]) -> None:
    session = new()
    session.on_message(messages.Parse("s", "SELECT double($1)"))
    session.on_message(messages.Bind("", "s", (), (b"1",)))
    session.state = state
    message = SAMPLE.get(kind, kind)()

    match ACTIONS.get((state, kind)):
        case None:
            with pytest.raises(RemoteProtocolError, match=kind.__name__):
                session.on_message(message)
            assert session.state is state
        case Action.IGNORE:
            assert session.on_message(message) == b""
            assert session.state is state
        case Action.HANDLE:
            answer = session.on_message(message)
            assert answer or kind in {messages.Flush, messages.Terminate}


def test_while_the_driver_works_nothing_else_is_handled() -> None:
    session = new()
    assert isinstance(session.on_message(messages.Query("SELECT double(1)")), Run)

    with pytest.raises(AssertionError):
        session.on_message(messages.Sync())


def test_a_simple_query() -> None:
    answer = run(new(), messages.Query("SELECT double(21) AS answer"))

    assert said(answer) == [
        messages.RowDescription((messages.Field("answer", 20, 8, 0),)),
        messages.DataRow((b"42",)),
        messages.CommandComplete("SELECT 1"),
        messages.ReadyForQuery("I"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM count(3)", "TDDDCZ"),
        ("SELECT * FROM count(NULL)", "TCZ"),
        ("SELECT double(NULL)", "TDCZ"),
        ("SHOW a.b", "TDCZ"),
        ("SET a = 1", "CZ"),
        ("", "IZ"),
        ("SELECT nothing()", "EZ"),
        ("SELECT double($1)", "EZ"),
    ],
)
def test_the_shape_of_an_answer(text: str, expected: str) -> None:
    assert kinds(run(new(), messages.Query(text))) == expected


def test_an_extended_query_in_binary() -> None:
    session = new()
    assert kinds(run(session, messages.Parse("", "SELECT double($1)"))) == "1"
    assert said(run(session, messages.Describe("S", ""))) == [
        messages.ParameterDescription((20,)),
        messages.RowDescription((messages.Field("twice", 20, 8, 0),)),
    ]
    assert kinds(run(session, messages.Bind("", "", (1,), (bytes(7) + b"\x15",), (1,)))) == "2"
    assert said(run(session, messages.Describe("P", ""))) == [
        messages.RowDescription((messages.Field("twice", 20, 8, 1),))
    ]
    assert said(run(session, messages.Execute(""))) == [
        messages.DataRow((bytes(7) + b"\x2a",)),
        messages.CommandComplete("SELECT 1"),
    ]
    assert run(session, messages.Flush()) == b""
    assert said(run(session, messages.Sync())) == [messages.ReadyForQuery("I")]


def test_rows_come_in_portions() -> None:
    session = new()
    run(session, messages.Query("BEGIN"))
    run(session, messages.Parse("", "SELECT * FROM count(5)"))
    run(session, messages.Bind("p", ""))

    shapes = [kinds(run(session, messages.Execute("p", 2))) for _ in range(4)]
    assert shapes == ["DDs", "DDs", "DC", "C"]
    run(session, messages.Sync())
    assert kinds(run(session, messages.Close("P", "p"))) == "3"
    assert error_of(run(session, messages.Execute("p")))["C"] == "34000"


def test_after_an_error_everything_is_dropped_up_to_sync() -> None:
    session = new()
    answer = run(session, messages.Parse("", "SELECT nothing()"))
    assert error_of(answer)["C"] == "42883"

    for message in (messages.Bind("", ""), messages.Execute(""), messages.Query("SHOW x"), messages.Flush()):
        assert run(session, message) == b""
    assert kinds(run(session, messages.Sync())) == "Z"
    assert kinds(run(session, messages.Query("SHOW x"))) == "TDCZ"


@pytest.mark.parametrize("is_extended", [False, True])
def test_work_that_fails_is_answered_as_its_protocol_wants(*, is_extended: bool) -> None:
    session = new()
    if is_extended:
        run(session, messages.Parse("", "SELECT double(1)"))
        run(session, messages.Bind("", ""))
        session.on_message(messages.Execute(""))
    else:
        session.on_message(messages.Query("SELECT double(1)"))

    answer = session.fail(SqlError("22023", "no", detail="d", hint="h"))

    assert error_of(answer) == {"S": "ERROR", "V": "ERROR", "C": "22023", "M": "no", "D": "d", "H": "h"}
    assert kinds(answer) == ("E" if is_extended else "EZ")
    assert session.state is (State.SKIPPING if is_extended else State.READY)


def test_a_transaction_block_is_kept_book_of() -> None:
    session = new()

    def status(text: str) -> str:
        ready = said(run(session, messages.Query(text)))[-1]
        assert isinstance(ready, messages.ReadyForQuery)
        return ready.status

    steps = ["BEGIN", "SHOW x", "SELECT nothing()", "SHOW x", "COMMIT", "SHOW x", "BEGIN", "ROLLBACK"]
    assert "".join(map(status, steps)) == "TTEEIITI"
    run(session, messages.Query("BEGIN"))
    run(session, messages.Query("SELECT nothing()"))
    assert error_of(run(session, messages.Query("SHOW x")))["C"] == "25P02"
    assert messages.CommandComplete("ROLLBACK") in said(run(session, messages.Query("COMMIT")))


@pytest.mark.parametrize(
    ("talk", "sqlstate"),
    [
        ([messages.Bind("", "none")], "26000"),
        ([messages.Describe("S", "none")], "26000"),
        ([messages.Describe("P", "none")], "34000"),
        ([messages.Execute("none")], "34000"),
        ([messages.Parse("s", "SHOW x"), messages.Parse("s", "SHOW x")], "42P05"),
        ([messages.Parse("", "SELECT double($1)"), messages.Bind("", "")], "08P01"),
        ([messages.Parse("", "SELECT double($1)"), messages.Bind("", "", (7,), (b"1",))], "08P01"),
        ([messages.Parse("", "SELECT double($1)"), messages.Bind("", "", (0, 0), (b"1",))], "08P01"),
        ([messages.Parse("", "SELECT double($1)"), messages.Bind("", "", (1,), (b"1",))], "22P03"),
        ([messages.Parse("", "SELECT double($1)"), messages.Bind("", "", (), (b"x",))], "22P02"),
        ([messages.Parse("", "SELECT double($1)", (600,))], "42704"),
        ([messages.Parse("", "SHOW x"), messages.Bind("p", ""), messages.Bind("p", "")], "42P03"),
        ([messages.FunctionCall(b"")], "0A000"),
        ([messages.Query("DEALLOCATE none")], "26000"),
    ],
)
def test_misuse_is_named(talk: list[Message], sqlstate: str) -> None:
    session = new()
    for message in talk[:-1]:
        run(session, message)

    assert error_of(run(session, talk[-1]))["C"] == sqlstate


def test_statements_can_be_dropped() -> None:
    session = new()
    for name in ("a", "b", "c"):
        run(session, messages.Parse(name, "SHOW x"))

    run(session, messages.Close("S", "a"))
    run(session, messages.Query("DEALLOCATE b"))
    assert [error_of(run(new_sync(session), messages.Describe("S", n)))["C"] for n in "ab"] == ["26000"] * 2
    assert kinds(run(new_sync(session), messages.Describe("S", "c"))) == "tT"
    run(session, messages.Query("DISCARD ALL"))
    run(session, messages.Query("DEALLOCATE ALL"))
    assert error_of(run(new_sync(session), messages.Describe("S", "c")))["C"] == "26000"


def new_sync(session: Session) -> Session:
    run(session, messages.Sync())
    return session


def test_a_replication_connection_takes_commands_and_no_extended_query() -> None:
    session = new(is_replication=True)

    assert session.on_message(messages.Query("IDENTIFY_SYSTEM")) == Replicate(replication.IdentifySystem())
    assert kinds(session.complete([])) == "Z"
    assert kinds(run(session, messages.Query("SHOW wal_segment_size"))) == "TDCZ"
    assert kinds(run(session, messages.Query(""))) == "IZ"
    assert error_of(run(session, messages.Query("SELECT double(1)")))["C"] == "0A000"
    assert error_of(run(session, messages.Parse("", "SHOW x")))["C"] == "08P01"
    assert kinds(run(session, messages.Sync())) == "Z"
