"""Nodes that only answer an operator: a status, and functions that do what a test says. On Unix sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from walproxy.wire import datum
from walproxy.wire.aio import Address, Handler, serve
from walproxy.wire.function import Column, Function

# What a function does each time it is called, in turn; the last one for ever: give values, or raise.
Answer = tuple[str, ...] | BaseException | Callable[[], Any]


class FakeNode(Handler):
    """A node of a group.

    Args:
        folder: where its socket is.
        name: its own.
        role: as `SHOW walproxy.status` gives it.
        port: of its address; another one is another address in the same folder.
        changes: more of its status, or other than `status_of` has it.
    """

    def __init__(
        self, folder: Path, name: str, role: str = "acceptor", port: int = 1, **changes: Any
    ) -> None:
        self.path = folder / name / f".s.PGSQL.{port}"
        self.path.parent.mkdir(exist_ok=True)
        self.conninfo = f"host={self.path.parent} port={port}"
        self.status = status_of(name, role, **changes)
        self.calls: list[str] = []
        self.functions = {}

    def answers(self, function: str, *answers: Answer, columns: int = 1) -> None:
        """Serve a function without arguments that answers so."""
        left = list(answers)

        async def call() -> list[tuple[str, ...]]:
            self.calls.append(function)
            answer = left.pop(0) if len(left) > 1 else left[0]
            if callable(answer):
                answer = await answer() if asyncio.iscoroutinefunction(answer) else answer()
            if isinstance(answer, BaseException):
                raise answer
            return [answer]

        names = ("stage", "says")[:columns]
        shown = tuple(Column(name, datum.TEXT) for name in names)
        self.functions[function] = Function(function, (), shown, call, is_set=columns > 1)

    def parameters(self) -> dict[str, str]:
        return {"server_version": "18.0"}

    async def show(self, name: str) -> str:
        self.calls.append(name)
        return json.dumps(self.status)

    async def replicate(self, connection: object, command: object) -> None:
        del connection, command
        raise AssertionError("nobody streams from it")


def status_of(name: str, role: str, **changes: Any) -> dict[str, Any]:
    """A member of the group a, b, c of generation 1, settled."""
    return {
        "name": name,
        "role": role,
        "leader": "",
        "term": 1,
        "generation": 1,
        "members": ["a", "b", "c"],
        "membership": membership(),
        "system_id": "7",
        **changes,
    }


def membership(addresses: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "phase": "settled",
        "sets": [["a", "b", "c"]],
        "learners": [],
        "becoming": [],
        "is_in_force": True,
        "addresses": addresses or {},
        **changes,
    }


@contextlib.asynccontextmanager
async def serving(*nodes: FakeNode) -> AsyncIterator[None]:
    """All of them, until the end of the block."""
    tasks = [asyncio.create_task(serve(Address(path=str(node.path)), node)) for node in nodes]
    async with asyncio.timeout(30):
        while not all(node.path.exists() for node in nodes):  # noqa: ASYNC110 - a file gives no event
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
