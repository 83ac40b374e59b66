"""Plain: a message without what its receiver never looks at, so that fewer of them are different ones."""

from dataclasses import replace

from walproxy.quorum.messages import AppendReply, Greeting, Message, VoteReply
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN


def plain_request(message: Message) -> Message:
    """To an acceptor: of a greeting it wants to know who it is from."""
    if isinstance(message, Greeting):
        return replace(_plain_greeting(message), term=0, flush_lsn=INVALID_LSN, term_history=TermHistory())
    return message


def plain_answer(message: Message) -> Message:
    """To a proposer: how far the log is and in which term; the rest decides only when it does something."""
    match message:
        case Greeting():
            return _plain_greeting(message)
        case VoteReply():
            return replace(message, last_log_term=0, flush_lsn=INVALID_LSN, why="")
        case AppendReply():
            return replace(message, write_lsn=INVALID_LSN, commit_lsn=INVALID_LSN)
        case _:
            return message


def _plain_greeting(message: Greeting) -> Greeting:
    nowhere = INVALID_LSN
    return replace(message, commit_lsn=nowhere, log_start_lsn=nowhere, local_start_lsn=nowhere, cluster=None)
