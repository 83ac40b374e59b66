"""What is wrong with a group of nodes, as far as the nodes themselves say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from walproxy.wire.lsn import INVALID_LSN, parse_lsn

NEARLY_FULL: Final = 0.8
_ADVICE: Final = "stop it, or add it with `walproxy member add`"
_PHASES: Final = {
    "learning": "until newcomers have caught up they have no vote:",
    "joint": "old and new ones decide together",
}


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
    alive = answers(seen)
    latest = newest(seen)
    members = set(members_of(latest))
    is_whole = bool(members) and len(seen) >= len(members)
    strangers = [status for status in alive if members and status["name"] not in members]
    alive = [status for status in alive if status not in strangers]
    complaints = [*_unsafe(alive, sets_of(latest), is_whole=is_whole)]
    flaws = silences(seen)
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
    warnings += [
        why
        for status in alive
        if status["role"] == "proposer"
        and status["upstream"]["state"] == "streaming"
        and (why := not_ready(status))
    ]
    if alive and not is_whole:
        warnings.append(f"only {len(seen)} of {len(members)} members were asked")
    warnings += [f"{status['name']} is not a member of the group: {_ADVICE}" for status in strangers]
    warnings += [words for status in alive if status["role"] == "proposer" and (words := changing(status))]
    return Verdict([*complaints, *_refused(alive)], warnings)


def answers(seen: list[Seen]) -> list[dict[str, Any]]:
    """The status of each that answers."""
    return [node.status for node in seen if node.status is not None]


def silences(seen: list[Seen]) -> list[str]:
    """Who does not answer, and why."""
    return [f"{node.name} does not answer: {node.error}" for node in seen if node.status is None]


def newest(seen: list[Seen]) -> dict[str, Any]:
    """The status of the node with the newest list of members; empty if none answers."""
    return max(answers(seen), key=lambda status: int(status.get("generation", 0)), default={})


def leading(seen: list[Seen]) -> dict[str, Any] | None:
    """The status of the proposer; of two, one of which does not know yet, that of the later term."""
    proposing = (status for status in answers(seen) if status["role"] == "proposer")
    return max(proposing, key=lambda status: int(status["term"]), default=None)


def members_of(latest: dict[str, Any]) -> list[str]:
    """The names of all members, as `newest` has them."""
    return [str(name) for name in latest.get("members", [])]


def addresses_of(latest: dict[str, Any]) -> dict[str, str]:
    """The address of each member, as `newest` has them; empty if nobody says."""
    found: dict[str, str] = latest.get("membership", {}).get("addresses", {})
    return found


def sets_of(latest: dict[str, Any]) -> list[set[str]]:
    """The sets of which each needs a majority, as `newest` has them. Source: docs/quorum.md rule 20."""
    if not latest:
        return []
    return [set(names) for names in latest.get("membership", {}).get("sets", [latest["members"]])]


def changing(status: dict[str, Any]) -> str:
    """What goes on while the members change, of the proposer's status; empty if they do not."""
    membership = status.get("membership", {})
    if membership.get("phase") not in _PHASES:
        return ""
    peers = status.get("peers", {})
    behind = ", ".join(
        f"{name} {peers[name]['lag_bytes']:,} bytes behind" if peers.get(name, {}).get("streaming")
        else f"{name} not connected"
        for name in membership["learners"]
    )  # fmt: skip
    becoming = ", ".join(membership["becoming"])
    return f"the members are becoming {becoming}: {_PHASES[membership['phase']]} {behind}".strip()


def _unsafe(alive: list[dict[str, Any]], sets: list[set[str]], *, is_whole: bool) -> Iterator[str]:
    """Why commits wait, or go where they should not."""
    working = {status["name"] for status in alive if not is_full(status)}
    proposers = [status for status in alive if status["role"] == "proposer"]
    for members in sets if is_whole else []:
        if len(working & members) * 2 <= len(members):
            yield f"no quorum: {len(working & members)} of {len(members)} nodes answer and take WAL; commits wait"
    if is_whole and not proposers:
        yield "no node proposes: commits wait until one is elected and reaches the primary"
    if len({status["system_id"] for status in alive if status["system_id"]}) > 1:
        yield "the nodes hold WAL of different clusters"
    for status in proposers:
        peers = status.get("peers", {})
        following = {status["name"], *(name for name, peer in peers.items() if peer["streaming"])}
        for members in sets:
            count = len(following & members)
            if count * 2 <= len(members):
                yield f"no quorum: {count} of {len(members)} nodes follow {status['name']}; commits wait"
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


def not_ready(status: dict[str, Any]) -> str:
    """Why a primary must not be used yet, of the proposer's status; empty if it may be.

    What it made visible before it was connected here may be known to nobody else.
    """
    upstream = status["upstream"]
    if status["role"] != "proposer":
        return "no node is the proposer"
    if upstream["state"] != "streaming":
        return f"{status['name']} has no stream from the primary: {upstream['state']} {upstream['error']}".strip()
    # A node of an older version does not say how much the primary had.
    tail, commit = parse_lsn(upstream.get("tail_lsn", "0/0")), parse_lsn(status["commit_lsn"])
    if commit < tail:
        return f"the primary is not ready: {tail - commit} bytes of its wal are not on the quorum yet"
    return ""


def primary_lag_bytes(status: dict[str, Any]) -> int | None:
    """How much WAL of the primary is not committed; None of a node that does not follow the primary."""
    end_lsn = parse_lsn(status["upstream"]["primary_end_lsn"])
    if status["role"] != "proposer" or end_lsn == INVALID_LSN:
        return None
    return max(0, end_lsn - parse_lsn(status["commit_lsn"]))
