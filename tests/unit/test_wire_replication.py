"""Replication commands and the messages inside a copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walproxy.wire import sql
from walproxy.wire.errors import RemoteProtocolError, SqlError
from walproxy.wire.lsn import Lsn
from walproxy.wire.replication import (
    Command,
    CreateSlot,
    DropSlot,
    HotStandbyFeedback,
    IdentifySystem,
    Keepalive,
    ReadSlot,
    StartPeer,
    StartReplication,
    StatusUpdate,
    TimelineHistory,
    XLogData,
    parse_client_message,
    parse_command,
    parse_server_message,
    postgres_time_us,
)

# As stock clients of 15 to 19 send them, and as the grammar allows.
COMMANDS: list[tuple[str, Command]] = [
    ("IDENTIFY_SYSTEM", IdentifySystem()),
    ("identify_system ;", IdentifySystem()),
    ("SHOW data_directory_mode", sql.Show("data_directory_mode")),
    ("SHOW walproxy.status", sql.Show("walproxy.status")),
    ("START_REPLICATION 0/3000000", StartReplication(Lsn(0x3000000))),
    ("START_REPLICATION PHYSICAL 16/B374D848", StartReplication(Lsn(0x16_B374_D848))),
    ("START_REPLICATION 0/03000000 TIMELINE 1", StartReplication(Lsn(0x3000000), None, 1)),
    (
        'START_REPLICATION SLOT "pg_basebackup_77" 0/2000000 TIMELINE 4294967295',
        StartReplication(Lsn(0x2000000), "pg_basebackup_77", (1 << 32) - 1),
    ),
    ("START_REPLICATION SLOT Keep PHYSICAL A/0", StartReplication(Lsn(0xA << 32), "keep")),
    ("TIMELINE_HISTORY 2", TimelineHistory(2)),
    ("READ_REPLICATION_SLOT s1", ReadSlot("s1")),
    ('CREATE_REPLICATION_SLOT "s" PHYSICAL', CreateSlot("s")),
    ("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL", CreateSlot("s", reserve_wal=True)),
    (
        'CREATE_REPLICATION_SLOT "s" TEMPORARY PHYSICAL ( RESERVE_WAL)',
        CreateSlot("s", is_temporary=True, reserve_wal=True),
    ),
    ("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL 'false')", CreateSlot("s")),
    ("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL true)", CreateSlot("s", reserve_wal=True)),
    ('DROP_REPLICATION_SLOT "s" WAIT', DropSlot("s", wait=True)),
    ("DROP_REPLICATION_SLOT s", DropSlot("s")),
    ("START_PEER", StartPeer()),
]


@pytest.mark.parametrize(("text", "command"), COMMANDS)
def test_a_command_means_what_it_means_to_postgres(text: str, command: Command) -> None:
    assert parse_command(text) == command


@pytest.mark.parametrize("text", ["", "  ", ";", "-- nothing"])
def test_nothing_is_nothing(text: str) -> None:
    assert parse_command(text) is None


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("START_REPLICATION", "42601"),
        ("START_REPLICATION 0/30000000000", "42601"),
        ("START_REPLICATION nowhere", "42601"),
        ("START_REPLICATION 0/1 TIMELINE 0", "42601"),
        ("START_REPLICATION 0/1 TIMELINE 4294967296", "42601"),
        ("START_REPLICATION 0/1 TIMELINE", "42601"),
        ("START_REPLICATION 0/1 0/2", "42601"),
        ("START_REPLICATION SLOT s LOGICAL 0/1", "0A000"),
        ("CREATE_REPLICATION_SLOT s LOGICAL test_decoding", "0A000"),
        ("CREATE_REPLICATION_SLOT s", "42601"),
        ("CREATE_REPLICATION_SLOT s PHYSICAL (SNAPSHOT 'export')", "42601"),
        ("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL", "42601"),
        ('CREATE_REPLICATION_SLOT "S" PHYSICAL', "42602"),
        ("CREATE_REPLICATION_SLOT " + "s" * 64 + " PHYSICAL", "42602"),
        ("ALTER_REPLICATION_SLOT s (FAILOVER)", "0A000"),
        ("BASE_BACKUP ( LABEL 'x',  PROGRESS)", "0A000"),
        ("UPLOAD_MANIFEST", "0A000"),
        ("SELECT pg_catalog.set_config('search_path', '', false);", "0A000"),
        ("TIMELINE_HISTORY x", "42601"),
        ("IDENTIFY_SYSTEM IDENTIFY_SYSTEM", "42601"),
        ("IDENTIFY_SYSTEM; IDENTIFY_SYSTEM", "42601"),
        ("\x01", "42601"),
        ("'open", "42601"),
    ],
)
def test_anything_else_is_refused(text: str, sqlstate: str) -> None:
    with pytest.raises(SqlError) as caught:
        parse_command(text)
    assert caught.value.sqlstate == sqlstate


@given(st.text(max_size=60))
def test_no_text_does_worse_than_a_refusal(text: str) -> None:
    try:
        parse_command(text)
    except SqlError:
        return


lsns = st.integers(0, (1 << 64) - 1).map(Lsn)
times = st.integers(-(1 << 63), (1 << 63) - 1)
xids = st.integers(0, (1 << 32) - 1)


@given(
    st.builds(XLogData, lsns, lsns, times, st.binary(max_size=100))
    | st.builds(Keepalive, lsns, times, st.booleans())
)
def test_what_a_server_sends_comes_back(message: XLogData | Keepalive) -> None:
    assert parse_server_message(message.encode()) == message


@given(
    st.builds(StatusUpdate, lsns, lsns, lsns, times, st.booleans())
    | st.builds(HotStandbyFeedback, times, xids, xids, xids, xids)
)
def test_what_a_client_sends_comes_back(message: StatusUpdate | HotStandbyFeedback) -> None:
    assert parse_client_message(message.encode()) == message


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_a_protocol_error(data: bytes) -> None:
    for parse in (parse_server_message, parse_client_message):
        try:
            parse(data)
        except RemoteProtocolError:
            continue


def test_the_layouts_are_those_of_the_protocol() -> None:
    status = StatusUpdate(Lsn(1), Lsn(2), Lsn(3), 4, reply_requested=True).encode()
    assert status == b"r" + bytes(7) + b"\1" + bytes(7) + b"\2" + bytes(7) + b"\3" + bytes(7) + b"\4\1"
    assert len(status) == 34
    assert len(Keepalive(Lsn(1), 2, reply_requested=False).encode()) == 18
    assert XLogData(Lsn(1), Lsn(2), 3, b"wal").encode()[25:] == b"wal"
    assert postgres_time_us(946_684_800.5) == 500_000


@pytest.mark.parametrize("length", [0, 1, 17, 33, 35])
def test_a_message_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_client_message((b"r" + bytes(40))[:length])
