"""Nodes that dial each other agree on a version of the protocol. docs/quorum.md rule 1."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from tests.unit.quorum_world import elected, new_acceptor
from walproxy import peers
from walproxy.errors import PrimaryUnreachable
from walproxy.peers import Complaints, OlderPeer, heard
from walproxy.ports import CopyStream
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.messages import OLDEST_VERSION, PROTOCOL_VERSION, Greeting, Message, decode, encode
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import Seal, TermHistory
from walproxy.wire.aio import Address, Connection, Handler, parse_address, serve
from walproxy.wire.function import Functions
from walproxy.wire.replication import Command, StartPeer


class Dialler:
    """A node that greets whom it dials, and notes what it hears."""

    name = "a"

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.dialled = 0
        self.changed = asyncio.Event()

    def on_dialled(self, peer: str, stream: CopyStream) -> None:
        assert peer == "b"
        self.dialled += 1
        stream.send(encode(new_acceptor("a").greeting()))

    def on_answer(self, peer: str, message: Message) -> None:
        assert peer == "b"
        self.heard.append(message)
        self.changed.set()

    def on_hung_up(self, peer: str) -> None: ...
    def on_accepted(self, peer: str, stream: CopyStream) -> None: ...
    def on_request(self, peer: str, message: Message) -> None: ...
    def on_left(self, peer: str, stream: CopyStream) -> None: ...
    def introduction(self) -> Greeting:
        return new_acceptor("a").greeting()

    has_room = True

    def pause_until_room(self, stream: CopyStream) -> None: ...
    def settle(self) -> None: ...


class Acceptor(Handler):
    """A node that speaks these versions only, as far as a greeting goes."""

    fatal = ()

    def __init__(self, versions: tuple[int, ...], *, is_deaf: bool = False) -> None:
        self.functions: Functions = {}
        self.versions = versions
        self.is_deaf = is_deaf
        self.greeted: list[int] = []

    def parameters(self) -> dict[str, str]:
        return {"server_version": "18.0"}

    async def show(self, name: str) -> str:
        raise PrimaryUnreachable(name)

    async def replicate(self, connection: Connection, command: Command) -> None:
        assert isinstance(command, StartPeer)
        stream = await connection.start_copy()
        data = await stream.receive()
        assert data is not None
        self.greeted.append(data[1])
        if self.is_deaf:
            await asyncio.sleep(60)
        if data[1] in self.versions:
            spoken = OlderPeer(stream, "a", Complaints()) if data[1] == OLDEST_VERSION else stream
            spoken.send(encode(new_acceptor("b").greeting()))
            await stream.receive()
        stream.close()

    async def closed(self, connection: Connection) -> None: ...


class Greeter:
    """A connection on which somebody greets, says no more, and hears nothing."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting

    async def receive(self) -> bytes:
        return self._greeting

    async def pump(self, take: Callable[[bytes], None], done: Callable[[], None]) -> None: ...
    async def flush(self) -> None: ...
    def send(self, data: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


@contextlib.asynccontextmanager
async def dialling(acceptor: Acceptor) -> AsyncIterator[Dialler]:
    started: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(parse_address("127.0.0.1:0"), acceptor, started=started.set_result))
    port = (await started).port
    dialler = Dialler()
    dial = asyncio.create_task(peers.dial("b", f"host=127.0.0.1 port={port}", dialler, Complaints()))
    try:
        yield dialler
    finally:
        for task in (dial, server):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - it looks at what others note
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", [OLDEST_VERSION, PROTOCOL_VERSION])
async def test_a_node_of_our_version_or_the_one_before_is_understood_rule_1(version: int) -> None:
    acceptor = Acceptor((version,))
    async with dialling(acceptor) as dialler:
        await until(lambda: bool(dialler.heard))

    answer = dialler.heard[0]
    assert isinstance(answer, Greeting)
    assert answer.version == version
    assert acceptor.greeted[-1] == version
    assert acceptor.greeted[0] == PROTOCOL_VERSION, "the newest is tried first"


async def test_a_greeting_that_is_not_answered_is_repeated_on_a_new_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "_ANSWER_TIMEOUT_S", 0.2)
    acceptor = Acceptor((PROTOCOL_VERSION,), is_deaf=True)
    async with dialling(acceptor) as dialler:
        await until(lambda: len(acceptor.greeted) == 1)
        acceptor.is_deaf = False
        await until(lambda: bool(dialler.heard))

    assert dialler.dialled > 1


def test_what_the_older_version_cannot_say_is_not_said_and_nothing_after_it_rule_1() -> None:
    sent: list[bytes] = []

    class Recorder:
        def send(self, data: bytes) -> None:
            sent.append(data)

        receive = pump = pause = resume = flush = close = None

    complaints = Complaints()
    older = OlderPeer(Recorder(), "b", complaints)  # type: ignore[arg-type]
    open_history = TermHistory.of([(1, 1, 4096)])

    older.send(encode(elected(1, 4096, open_history)))
    older.send(encode(elected(2, 4096, open_history.with_entry(2, 1, 4096, Seal.SEALED))))
    older.send(encode(elected(1, 4096, open_history)))

    assert [decode(data) for data in sent] == [elected(1, 4096, open_history)]
    assert "upgrade" in "".join(complaints.counts)


@pytest.mark.parametrize("size", [0, 1, 1 << 19, (1 << 24) + 1, 3 << 20, 1 << 31])
def test_a_cluster_with_segments_that_postgres_has_not_is_refused_rule_15(size: int) -> None:
    fine = [Cluster(7, 1 << power, 18) for power in (20, 24, 30)]
    first = elected(1, 4096, TermHistory.of([(1, 1, 4096)]))
    greeting = new_acceptor("b").greeting()

    for message in (greeting, first):
        with pytest.raises(MessageMalformed, match="segment size"):
            heard(encode(replace(message, cluster=Cluster(7, size, 18))))
        for cluster in fine:
            said = replace(message, cluster=cluster)
            assert heard(encode(said)) == said
    assert heard(encode(greeting)) == greeting, "a node without a log knows no cluster"


async def test_complaints_of_strangers_are_bounded() -> None:
    complaints = Complaints()
    log = new_acceptor("a")
    asked = Dialler()
    asked.on_request = log.check_identity  # type: ignore[method-assign, assignment]

    for name in [f"{number}{'x' * 1000}" for number in range(50)]:
        stream = Greeter(encode(replace(log.greeting(), name=name, node_id=b"z")))
        await peers.answer(stream, asked, complaints)
    stream = Greeter(encode(replace(log.greeting(), name="b", node_id=b"b")))
    await peers.answer(stream, asked, complaints)
    stream = Greeter(encode(replace(log.greeting(), name="b", node_id=b"another")))
    await peers.answer(stream, asked, complaints)

    assert complaints.counts.pop("not a member: peer is not a member peer") == 50
    (said,) = complaints.counts
    assert said.startswith("b: peer has lost its disk"), "members are known by their names"
