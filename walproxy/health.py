"""The HTTP port of a node, for load balancers and supervisors: `/live` and `/ready`. One request a connection."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import structlog

from walproxy.ask import ask_node
from walproxy.group import not_ready
from walproxy.wire.aio import Address, remove_stale

_REQUEST_BYTES_MAX: Final = 8192
_REQUEST_TIMEOUT_S: Final = 5.0
_CONNECTIONS_MAX: Final = 64
_REMEMBER_S: Final = 0.5  # What the proposer said: many requests here are few there.
_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable",
}  # fmt: skip

_log = structlog.get_logger(__name__)


class HealthyNode(Protocol):
    """What is asked of the node."""

    @property
    def name(self) -> str: ...
    def status(self) -> dict[str, Any]:
        """The node's own part of `SHOW walproxy.status`."""


class Health:
    """Answers for a node.

    Args:
        node: whose health it is.
        members: how to reach each: a node that is not the proposer asks the one that is.
    """

    def __init__(self, node: HealthyNode, members: Mapping[str, str]) -> None:
        self._node = node
        self._members = members
        self._open = 0
        self._asking = asyncio.Lock()
        self._said: tuple[float, str, str] = (float("-inf"), "", "")

    async def why_not_ready(self) -> str:
        """Why the group does not take commits of a primary whose WAL it has; empty if it does."""
        status = self._node.status()
        leader = str(status["leader"])
        if status["role"] == "proposer":
            return not_ready(status)
        membership = status.get("membership")
        members = {**self._members, **(membership["addresses"] if isinstance(membership, dict) else {})}
        if leader not in members or leader == self._node.name:
            return "no node is the proposer"
        async with self._asking:
            now_s = asyncio.get_running_loop().time()
            at_s, of, why = self._said
            if of != leader or now_s - at_s > _REMEMBER_S:
                seen = await ask_node(leader, members[leader])
                why = f"{leader} does not answer" if seen.status is None else not_ready(seen.status)
                self._said = (asyncio.get_running_loop().time(), leader, why)
        return why

    async def answer(self, request: bytes) -> tuple[int, str]:
        """Status and text for the head of a request."""
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, "not a request of HTTP/1"
        method, path = words[0], words[1].split(b"?", 1)[0]
        if path not in {b"/live", b"/ready"}:
            return 404, "there are /live and /ready"
        if method not in {b"GET", b"HEAD"}:
            return 405, "GET or HEAD"
        if path == b"/live":
            return 200, "live"
        why = await self.why_not_ready()
        return (503, why) if why else (200, "ready")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request to its end."""
        if self._open >= _CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                try:
                    request = await reader.readuntil(b"\r\n\r\n")
                    code, text = await self.answer(request)
                except asyncio.LimitOverrunError:
                    request, code, text = b"", 400, "the request is too long"
                body = b"" if request.startswith(b"HEAD ") else text.encode() + b"\n"
                head = (
                    f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                    f"Content-Length: {len(text.encode()) + 1}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()


async def serve_health(address: Address, node: HealthyNode, members: Mapping[str, str]) -> None:
    """Serve until cancelled. Raises OSError: the address cannot be listened on."""
    health = Health(node, members)
    if address.path:
        remove_stale(address.path)
        server = await asyncio.start_unix_server(health.serve, address.path, limit=_REQUEST_BYTES_MAX)
    else:
        server = await asyncio.start_server(
            health.serve, address.host, address.port, limit=_REQUEST_BYTES_MAX
        )
    _log.info("health is served", address=str(address))
    async with server:
        await server.serve_forever()
