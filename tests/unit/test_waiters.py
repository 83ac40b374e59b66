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

    with pytest.raises(TimeoutError):
        await waiters.wait(10, 0.001)
    waiters.wake(Lsn(5))

    assert len(waiters) == 0
