"""Who waits for which LSN."""

import asyncio
import heapq
import itertools

from walproxy.wire.lsn import Lsn


class LsnWaiters:
    """Wakes waiters once their LSN is reached. Belongs to the event loop."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    async def wait(self, lsn: int, timeout_s: float) -> None:
        """Return once `wake` was called with that LSN or a later one. Raises TimeoutError."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (lsn, next(self._numbers), future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            if future.cancelled():  # It gave up, as may others have that did not come here yet.
                self._heap = [waiter for waiter in self._heap if not waiter[2].done()]
                heapq.heapify(self._heap)

    def wake(self, lsn: Lsn) -> None:
        """That LSN is reached."""
        while self._heap and self._heap[0][0] <= lsn:
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)
