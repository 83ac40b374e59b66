"""Dialler: keeps a connection to the acceptor of each member that there is now."""

import asyncio
from collections.abc import Mapping

from walproxy.peers import Complaints, PeerHandler, dial


class Dialler:
    """Dials members that appear, hangs up on those that left or moved.

    Args:
        handler: whom the connections are for.
        complaints: of its peers.
    """

    def __init__(self, handler: PeerHandler, complaints: Complaints) -> None:
        self._handler = handler
        self._complaints = complaints
        self._tasks: asyncio.TaskGroup | None = None
        self._dialled: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._wanted: dict[str, str] = {}

    def follow(self, addresses: Mapping[str, str]) -> None:
        """From now on these, by name; the rest is hung up on."""
        self._wanted = dict(addresses)
        self._arrange()

    async def run(self) -> None:
        """Until cancelled; raises what a connection's handler raises, in a group."""
        async with asyncio.TaskGroup() as self._tasks:
            self._arrange()
            await asyncio.get_running_loop().create_future()

    def _arrange(self) -> None:
        if self._tasks is None:
            return
        for name, (conninfo, task) in list(self._dialled.items()):
            if self._wanted.get(name) != conninfo:
                del self._dialled[name]
                task.cancel()
        for name, conninfo in self._wanted.items():
            if name not in self._dialled:
                task = self._tasks.create_task(dial(name, conninfo, self._handler, self._complaints))
                self._dialled[name] = conninfo, task
