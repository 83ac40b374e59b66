"""What an operator asks of a running group: hand over, seal, open again. Served over SQL on the nodes' own port."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from walproxy.quorum.errors import HandoverRefused
from walproxy.quorum.replica import Replica
from walproxy.refusals import invalid, not_now, not_proposer
from walproxy.wire import datum
from walproxy.wire.function import Argument, Column, Function, Functions
from walproxy.wire.lsn import Lsn

_LOOK_EVERY_S: Final = 0.05
_TIMEOUT_S: Final = 10.0

_log = structlog.get_logger(__name__)


class Operator:
    """Carries out what is asked, and waits until it is so.

    Args:
        replica: the node's core.
        settle: carries out what the core decided.
    """

    def __init__(self, replica: Replica, settle: Callable[[], None]) -> None:
        self._replica = replica
        self._settle = settle

    async def transfer(self, to: str | None) -> str:
        """Hand the proposer's place over; gives the name of who has it then. Raises SqlError."""
        replica = self._replica
        self._check_proposing()
        members = replica.acceptor.state.membership.everyone
        if to and to not in members:
            raise invalid(f"{to} is not a member: the members are {', '.join(members)}")
        chosen = self._ask(lambda: replica.transfer(to or None, self._now_s))
        _log.warning("the operator hands over", to=chosen, term=replica.proposer.term)
        self._settle()
        await self._until(lambda: not replica.is_proposing or replica.proposer.successor is None)
        if replica.is_proposing:
            raise not_now(f"{chosen} did not take over in time: {replica.name} goes on")
        await self._until(lambda: bool(replica.leader))
        if replica.leader != chosen:
            raise not_now(f"{replica.leader or 'nobody'} was elected instead of {chosen}")
        return chosen

    async def seal(self) -> Lsn:
        """End the log; gives where, when that is on a majority. Raises SqlError."""
        replica = self._replica
        self._check_proposing()
        if not replica.proposer.term_history.sealed_lsn:
            self._ask(lambda: replica.seal(self._now_s, random.random()))  # noqa: S311 - a time to wait
            self._settle()
        await self._until(self._is_begun)
        sealed_lsn = replica.proposer.term_history.sealed_lsn
        if not self._is_begun() or not sealed_lsn:
            raise not_now("the seal is not known to stand: look at walproxy status, then seal again")
        _log.warning("the log is sealed", sealed_lsn=str(sealed_lsn), term=replica.proposer.term)
        return sealed_lsn

    async def unseal(self) -> Lsn:
        """Let the log go on; gives from where, when that is on a majority. Raises SqlError."""
        replica = self._replica
        self._check_proposing()
        if replica.proposer.term_history.sealed_lsn:
            self._ask(lambda: replica.unseal(self._now_s, random.random()))  # noqa: S311 - a time to wait
            self._settle()
        await self._until(self._is_begun)
        if not self._is_begun() or replica.proposer.term_history.sealed_lsn:
            raise not_now("the log is not known to be open: look at walproxy status, then unseal again")
        _log.warning("the log is open", end_lsn=str(replica.acceptor.record_end_lsn))
        return replica.acceptor.record_end_lsn

    def functions(self) -> Functions:
        """`select walproxy.transfer('b')`, `walproxy.seal()`, `walproxy.unseal()`."""

        def one(
            name: str, arguments: tuple[Argument, ...], call: Callable[..., Awaitable[object]]
        ) -> Function:
            async def rows(*values: object) -> list[tuple[str]]:
                return [(str(await call(*values)),)]

            return Function(name, arguments, (Column(name.rpartition(".")[2], datum.TEXT),), rows)

        to = Argument("member", datum.TEXT, is_optional=True)
        made = (
            one("walproxy.transfer", (to,), self.transfer),
            one("walproxy.seal", (), self.seal),
            one("walproxy.unseal", (), self.unseal),
        )
        return {function.name: function for function in made}

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _is_begun(self) -> bool:
        """The term we lead is known to a majority."""
        proposer = self._replica.proposer
        return self._replica.is_proposing and proposer.commit_lsn >= proposer.term_start_lsn

    def _check_proposing(self) -> None:
        if not self._replica.is_proposing:
            raise not_proposer(self._replica.name, self._replica.leader)

    def _ask(self, what: Callable[[], object]) -> str:
        self._check_proposing()
        try:
            return str(what())
        except HandoverRefused as error:
            raise not_now(str(error)) from error

    async def _until(self, is_so: Callable[[], bool]) -> None:
        end_s = self._now_s + _TIMEOUT_S
        while not is_so() and self._now_s < end_s:  # noqa: ASYNC110 - a look at a core that has no events
            await asyncio.sleep(_LOOK_EVERY_S)
