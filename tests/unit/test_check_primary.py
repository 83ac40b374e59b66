"""`walproxy check` beside a primary that is no help."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.fake_node import FakeNode, serving
from walproxy import check


class Hanging(FakeNode):
    """It lets a session begin, and then says nothing, as a server whose disk hangs."""

    async def show(self, name: str) -> str:
        del name
        await asyncio.sleep(3600)
        return ""


async def test_one_that_hangs_is_red_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_TIMEOUT_S", 0.5)
    primary = Hanging(tmp_path, "p")
    async with serving(primary), asyncio.timeout(30):
        (found,) = await check.check_primary(primary.conninfo, application_name="walproxy", slot_name="w")

    assert (found.level, found.value) == (check.Level.RED, "no answer in 0.5 s")
