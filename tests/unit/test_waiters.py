"""Waiting for an LSN."""

import asyncio

import pytest

from pageserver.waiters import LsnWaiters
from walproxy.wire.lsn import Lsn


async def test_those_are_woken_whose_lsn_is_reached() -> None:
    waiters = LsnWaiters()
    early, late = (asyncio.create_task(waiters.wait(lsn, 5)) for lsn in (10, 20))
    await asyncio.sleep(0)

    waiters.wake(Lsn(10))
    await early

    assert not late.done()
    waiters.wake(Lsn(25))
    await late


async def test_one_that_gave_up_is_forgotten() -> None:
    waiters = LsnWaiters()

    kept = asyncio.create_task(waiters.wait(10, 5))
    for lsn in (20, 5, 30):
        with pytest.raises(TimeoutError):
            await waiters.wait(lsn, 0.001)

    assert len(waiters) == 1
    waiters.wake(Lsn(10))
    await kept
    assert len(waiters) == 0


async def test_many_that_give_up_at_once_are_forgotten() -> None:
    waiters = LsnWaiters()
    tasks = [asyncio.create_task(waiters.wait(lsn, 5)) for lsn in range(10)]
    await asyncio.sleep(0)

    for task in tasks:
        task.cancel()
    waiters.wake(Lsn(3))
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(how) for how in ended} == {asyncio.CancelledError}
    assert len(waiters) == 0
