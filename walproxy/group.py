"""What is wrong with a group of nodes, as far as the nodes themselves say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from walproxy.wire.lsn import INVALID_LSN, parse_lsn

NEARLY_FULL: Final = 0.8


@dataclass(frozen=True, slots=True)
class Seen:
    """One node: its status, or why there is none."""

    name: str
    status: dict[str, Any] | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Complaints: commits are not safe, or not shown to be, or a member is lost. Warnings: they go on."""

    complaints: list[str]
    warnings: list[str]


def judge(seen: list[Seen]) -> Verdict:
    """Judge the group; of members that were not asked, only what the proposer says is known."""
    alive = [node.status for node in seen if node.status is not None]
    members = {str(name) for status in alive for name in status["members"]}
    is_whole = bool(members) and len(seen) >= len(members)
    complaints = [*_unsafe(alive, members, is_whole=is_whole)]
    flaws = [f"{node.name} does not answer: {node.error}" for node in seen if node.status is None]
    flaws += [
        f"{status['name']} is full of WAL and takes no more: raise max_wal_size_bytes, or see to what holds it"
        for status in alive
        if is_full(status)
    ]
    warnings: list[str] = []
    if complaints or not alive:
        complaints = flaws + complaints
    else:
        warnings += flaws
    if alive and not is_whole:
        warnings.append(f"only {len(seen)} of {len(members)} members were asked")
    return Verdict([*complaints, *_refused(alive)], warnings)


def _unsafe(alive: list[dict[str, Any]], members: set[str], *, is_whole: bool) -> Iterator[str]:
    """Why commits wait, or go where they should not."""
    working = [status for status in alive if not is_full(status)]
    proposers = [status for status in alive if status["role"] == "proposer"]
    if is_whole and len(working) * 2 <= len(members):
        yield f"no quorum: {len(working)} of {len(members)} nodes answer and take WAL; commits wait"
    if is_whole and not proposers:
        yield "no node proposes: commits wait until one is elected and reaches the primary"
    if len({status["system_id"] for status in alive if status["system_id"]}) > 1:
        yield "the nodes hold WAL of different clusters"
    for status in proposers:
        following = 1 + sum(peer["streaming"] for peer in status.get("peers", {}).values())
        if following * 2 <= len(members):
            yield f"no quorum: {following} of {len(members)} nodes follow {status['name']}; commits wait"
        upstream = status["upstream"]
        if upstream["state"] != "streaming":
            yield f"{status['name']} has no stream from the primary: {upstream['error']}"


def _refused(alive: list[dict[str, Any]]) -> Iterator[str]:
    """Members that are up and may not follow: only a person can help."""
    names = {status["name"] for status in alive}
    for status in alive:
        for name, peer in status.get("peers", {}).items():
            said = [text for text in status["refused_messages"] if text.startswith(f"{name}: ")]
            if peer["refused"]:
                yield f"{name} is refused: {peer['refused']}"
            elif said and name in names and not peer["streaming"]:
                yield f"{name} is refused: {said[-1].removeprefix(f'{name}: ')}"


def is_full(status: dict[str, Any]) -> bool:
    """There is no room for another segment."""
    free: int = status["wal_size_bytes_max"] - status["wal_size_bytes"]
    return free < (status["wal_segment_size_bytes"] or 0)


def primary_lag_bytes(status: dict[str, Any]) -> int | None:
    """How much WAL of the primary is not committed; None of a node that does not follow the primary."""
    end_lsn = parse_lsn(status["upstream"]["primary_end_lsn"])
    if status["role"] != "proposer" or end_lsn == INVALID_LSN:
        return None
    return max(0, end_lsn - parse_lsn(status["commit_lsn"]))
