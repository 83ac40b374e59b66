"""Errand: what an operator wants done, taken to whichever node proposes, and waited for."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from walproxy.ask import ask_group, ask_node
from walproxy.errors import ConfigInvalid, NotReady, Refused
from walproxy.group import Seen, answers, changing, leading, silences
from walproxy.quorum.request import Stage
from walproxy.refusals import INVALID, NOT_IN_FORCE, NOT_PROPOSER
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth

_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_TIMEOUT_S: Final = 30.0  # A node that hands over or seals answers within 20 s.
_LOOK_AFTER_S: Final = 0.2
_LOOK_EVERY_S_MAX: Final = 5.0
_UNKNOWN: Final = "what was begun may go on: look at `walproxy status`, then ask again"


class Errand:
    """One thing to be done, until a deadline. The proposer is looked for again whenever it changes.

    Args:
        seeds: conninfos of some nodes of the group, by name; they tell of the others.
        timeout_s: to wait for a proposer, and for the end of what was begun.
        tell: gets words for what is waited for.
    """

    def __init__(self, seeds: Mapping[str, str], *, timeout_s: float, tell: Callable[[str], None]) -> None:
        self._known = dict(seeds)
        self._timeout_s = timeout_s
        self._begun_s = time.monotonic()
        self._tell = tell
        self._told = ""
        self._is_answered = False
        self._proposer = ("", "")  # Its name and conninfo.
        self._may_be_begun = False

    async def ask(self, query: str, *, is_repeatable: bool) -> str:
        """One value from the proposer.

        Args:
            query: gives one row of one text.
            is_repeatable: asked twice it does the same: then a lost answer is asked for again.

        Raises:
            ConfigInvalid: what is asked for makes no sense.
            Refused: the group says no.
            NotReady: there is no proposer in time, or whether it is done is not known; the message says which.
        """
        with self._telling_interrupt():
            (value,) = await self._ask(query, is_repeatable=is_repeatable)
            return value

    async def finish(self, query: str) -> str:
        """Ask until the answer, a `Stage` and words for it, is that all is done; gives the words.

        Raises as `ask`.
        """
        with self._telling_interrupt():
            while True:
                stage, says = await self._ask(query, is_repeatable=True)
                if stage == Stage.DONE.value:
                    return says
                await self._while_changing(says)

    async def _ask(self, query: str, *, is_repeatable: bool) -> tuple[str, ...]:
        while True:
            name, conninfo = self._proposer = await self._find()
            was_begun = self._may_be_begun
            try:
                return await self._row(conninfo, query)
            except (ConnectFailed, TimeoutError) as error:
                why = f"{name} is lost: {str(error) or 'no answer in time'}"
                if self._may_be_begun and not is_repeatable:
                    raise NotReady(f"{why}: {_UNKNOWN}") from error
            except SqlError as error:
                self._may_be_begun = was_begun
                if error.sqlstate not in {NOT_PROPOSER, NOT_IN_FORCE}:
                    raise _refusal(name, error) from error
                why = error.message
            await self._wait(why)

    async def _while_changing(self, says: str) -> None:
        """Wait until the members do not change any more, or another node proposes."""
        while True:
            await self._wait(says)
            status = (await ask_node(*self._proposer)).status
            if status is None or status["role"] != "proposer":
                return
            if not (says := changing(status)):
                if status["membership"]["is_in_force"]:
                    return
                says = "until a majority knows of it"

    async def _find(self) -> tuple[str, str]:
        """Name and conninfo of the proposer, as soon as there is one. Raises ConfigInvalid, NotReady."""
        while True:
            seen, addresses = await ask_group(self._known)
            self._known |= addresses
            self._check_group(seen)
            leader = leading(seen)
            if leader is not None:
                return leader["name"], addresses[leader["name"]]
            await self._wait(f"no proposer answers: {_each(seen)}")

    def _check_group(self, seen: list[Seen]) -> None:
        """It is worth waiting for, and one. Raises ConfigInvalid, NotReady."""
        alive = answers(seen)
        if not alive and not self._is_answered:
            raise NotReady(f"no node answers: {_each(seen)}")
        self._is_answered = True
        if len({status["system_id"] for status in alive if status["system_id"]}) > 1:
            raise ConfigInvalid("the nodes hold WAL of different clusters: name those of one group")
        if alive and all(status["role"] == "waiting" for status in alive):
            raise ConfigInvalid(
                f"{_each(seen)}: it waits to be added to a group; give the file, or --node, of a member"
            )

    async def _wait(self, why: str) -> None:
        """A moment: the longer it took already the longer. Raises NotReady: the time is over."""
        if why != self._told:
            self._told = why
            self._tell(f"{why}; waits")
        passed_s = time.monotonic() - self._begun_s
        if passed_s >= self._timeout_s:
            fate = _UNKNOWN if self._may_be_begun else "nothing was begun"
            raise NotReady(f"not done in {self._timeout_s:g} s: {why}; {fate}")
        await asyncio.sleep(min(pause_s(passed_s), self._timeout_s - passed_s))

    async def _row(self, conninfo: str, query: str) -> tuple[str, ...]:
        """Raises ConnectFailed, TimeoutError, SqlError."""
        connection = await CopyBoth.connect(
            conninfo, replication=False, application_name="walproxy", timeout_s=_CONNECT_TIMEOUT_S
        )
        self._may_be_begun = True
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                (row,) = await connection.query(query)
        finally:
            connection.close()
        return tuple((value or b"").decode() for value in row)

    @contextlib.contextmanager
    def _telling_interrupt(self) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self._tell(f"interrupted: {_UNKNOWN if self._may_be_begun else 'nothing was begun'}")
            raise


def pause_s(passed_s: float) -> float:
    """Until the next look at what takes so long already."""
    return min(max(_LOOK_AFTER_S, passed_s / 4), _LOOK_EVERY_S_MAX)


def call(function: str, *arguments: str | bool | None) -> str:
    """The query for one row of a node's function."""
    return f"SELECT * FROM {function}({', '.join(map(_literal, arguments))})"  # noqa: S608 - quoted


def _literal(value: str | bool | None) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "null" if value is None else str(value).lower()


def _each(seen: list[Seen]) -> str:
    """What each node is, or why that is not known."""
    roles = [
        f"{status['name']}: {status['role']}" + (f" of {leader}" if (leader := status.get("leader")) else "")
        for status in answers(seen)
    ]
    return "; ".join(roles + silences(seen))


def _refusal(name: str, error: SqlError) -> ConfigInvalid | Refused:
    hint = f" ({error.hint})" if error.hint else ""
    kind = ConfigInvalid if error.sqlstate == INVALID else Refused
    return kind(f"{name}: {error.message}{hint}")
