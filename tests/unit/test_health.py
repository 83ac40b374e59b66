"""The HTTP port: what it answers, and that hostile requests end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from walproxy import health
from walproxy.health import serve_health
from walproxy.wire.aio import Address

STREAMING = {"state": "streaming", "error": "", "tail_lsn": "0/2000"}


class StatusNode:
    name = "a"

    def __init__(self, **changes: Any) -> None:
        self.shown = {
            "name": "a",
            "role": "proposer",
            "leader": "a",
            "commit_lsn": "0/2000",
            "upstream": STREAMING,
        }
        self.shown |= changes

    def status(self) -> dict[str, Any]:
        return self.shown


@contextlib.asynccontextmanager
async def served(folder: Path, node: StatusNode) -> AsyncIterator[str]:
    path = str(folder / "http")
    task = asyncio.create_task(
        serve_health(Address(path=path), node, {"a": "host=/nowhere", "b": "host=/nowhere"})
    )
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(Path(path).exists):  # noqa: ASYNC110 - a file gives no event
            await asyncio.sleep(0.01)
    yield path
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def said(path: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /live HTTP/1.1", b"200"),
        (b"GET /ready HTTP/1.0", b"200"),
        (b"HEAD /ready?from=lb HTTP/1.1", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /ready HTTP/1.1", b"405"),
        (b"GET /ready", b"400"),
        (b"\x00\xff \x01", b"400"),
    ],
)
async def test_a_request_gets_its_answer(tmp_path: Path, request_line: bytes, expected: bytes) -> None:
    async with served(tmp_path, StatusNode()) as path:
        answer = await said(path, request_line + b"\r\nHost: x\r\n\r\n")

    assert answer.split(b" ")[1] == expected
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"commit_lsn": "0/1FFF"}, b"1 bytes of its wal"),
        ({"upstream": STREAMING | {"state": "refused", "error": "behind"}}, b"refused behind"),
        ({"role": "acceptor", "leader": ""}, b"no node is the proposer"),
        ({"role": "acceptor", "leader": "b"}, b"b does not answer"),
    ],
)
async def test_it_is_ready_only_when_all_the_primary_had_is_on_the_quorum(
    tmp_path: Path, changes: dict[str, Any], why: bytes
) -> None:
    async with served(tmp_path, StatusNode(**changes)) as path:
        answer = await said(path, b"GET /ready HTTP/1.1\r\n\r\n")
        live = await said(path, b"GET /live HTTP/1.1\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert why in answer
    assert live.startswith(b"HTTP/1.1 200 ")


async def test_a_head_without_end_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, StatusNode()) as path:
        answer = await said(path, b"GET /ready HTTP/1.1\r\nX: " + b"x" * 1_000_000)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_who_says_nothing_is_let_go_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(health, "_CONNECTIONS_MAX", 3)
    async with served(tmp_path, StatusNode()) as path:
        silent = [await asyncio.open_unix_connection(path) for _ in range(10)]
        for reader, writer in silent:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
        answer = await said(path, b"GET /ready HTTP/1.1\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
