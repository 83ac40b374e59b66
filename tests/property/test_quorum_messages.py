"""Peer messages and the control state survive the wire; damaged ones are refused. docs/quorum.md rule 1."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walproxy.quorum.coding import TERM_MAX
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    WAL_BYTES_MAX,
    Append,
    AppendReply,
    Elected,
    Feedback,
    Greeting,
    HistoryFile,
    Message,
    SlotHorizon,
    StandNow,
    VoteReply,
    VoteRequest,
    append_prefix,
    decode,
    encode,
    in_older_version,
)
from walproxy.quorum.state import Cluster, ControlState, decode_control, encode_control
from walproxy.quorum.terms import Seal, TermEntry, TermHistory
from walproxy.wire.lsn import Lsn

lsns = st.integers(0, 2**64 - 1).map(Lsn)
terms = st.integers(0, TERM_MAX)
u32s = st.integers(0, 2**32 - 1)
generations = st.integers(1, 2**32 - 1)
names = st.text(max_size=12)
clusters = st.builds(Cluster, st.integers(1, 2**64 - 1), u32s, st.integers(0, 2**16 - 1))


@st.composite
def histories(draw: st.DrawFn, min_size: int = 0) -> TermHistory:
    keys = draw(
        st.lists(st.tuples(st.integers(1, TERM_MAX), st.integers(1, 9)), min_size=min_size, max_size=5)
    )
    keys = sorted(set(keys))
    seals = draw(st.lists(st.sampled_from(Seal), min_size=len(keys), max_size=len(keys)))
    starts = sorted(draw(st.lists(st.integers(1, 2**63), min_size=len(keys), max_size=len(keys))))
    for at, seal in enumerate(seals[:-1]):
        if seal:  # What follows a seal begins where it stands.
            starts[at + 1 :] = [
                max(start, starts[at]) if n else starts[at] for n, start in enumerate(starts[at + 1 :])
            ]
    return TermHistory(
        tuple(TermEntry(*key, Lsn(start), seal) for key, start, seal in zip(keys, starts, seals, strict=True))
    )


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    one_set = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True).map(tuple)
    return Membership(draw(generations), draw(one_set), draw(one_set | st.just(())))


@st.composite
def greetings(draw: st.DrawFn) -> Greeting:
    membership = draw(memberships())
    return Greeting(
        membership.generation,
        draw(names),
        draw(st.binary(max_size=16)),
        membership,
        draw(terms),
        draw(lsns),
        draw(lsns),
        draw(lsns),
        draw(lsns),
        draw(histories()),
        draw(st.none() | clusters),
    )


@st.composite
def elections(draw: st.DrawFn) -> Elected:
    history = draw(histories(min_size=1))
    return Elected(
        draw(generations), history.last_term, draw(lsns), history, draw(lsns), draw(lsns), draw(clusters)
    )


messages = st.one_of(
    greetings(),
    st.builds(VoteRequest, generations, terms, st.booleans(), terms, lsns),
    st.builds(VoteReply, generations, terms, st.booleans(), st.booleans(), terms, terms, lsns, names),
    elections(),
    st.builds(Append, generations, terms, u32s, lsns, lsns, lsns, st.binary(max_size=64)),
    st.builds(StandNow, generations, terms),
    st.builds(HistoryFile, generations, terms, u32s, st.binary(max_size=64)),
    st.builds(
        AppendReply,
        generations,
        terms,
        lsns,
        lsns,
        lsns,
        st.builds(Feedback, u32s, u32s, u32s, u32s),
        st.lists(st.builds(SlotHorizon, names, lsns, lsns), max_size=3).map(tuple),
    ),
)


@given(messages)
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_truncated_message_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    # An Append has no length of its own: cut within its WAL it is another, shorter Append.
    fixed = len(append_prefix(message)) if isinstance(message, Append) else len(whole)
    cut = data.draw(st.integers(0, fixed - 1))

    with pytest.raises(MessageMalformed):
        decode(whole[:cut])


@given(messages.filter(lambda message: not isinstance(message, Append)), st.binary(min_size=1, max_size=4))
def test_bytes_left_over_are_refused(message: Message, more: bytes) -> None:
    with pytest.raises(MessageMalformed):
        decode(encode(message) + more)


SPOKEN = (OLDEST_VERSION, PROTOCOL_VERSION)


@given(messages)
def test_the_version_before_ours_is_spoken_too_rule_1(message: Message) -> None:
    history = message.term_history if isinstance(message, Greeting | Elected) else TermHistory()
    if isinstance(message, StandNow) or any(entry.seal for entry in history.entries):
        # That version has no word for it: better nothing than something else.
        with pytest.raises(MessageMalformed, match="older"):
            in_older_version(encode(message))
        return
    older = in_older_version(encode(message))

    expected = replace(message, version=OLDEST_VERSION) if isinstance(message, Greeting) else message
    assert older[1] == OLDEST_VERSION
    assert decode(older) == expected


def test_a_message_of_ours_under_the_older_version_is_refused_rule_1() -> None:
    whole = encode(StandNow(1, 1))

    with pytest.raises(MessageMalformed, match="newer"):
        decode(whole[:1] + bytes([OLDEST_VERSION]) + whole[2:])


@given(messages, st.integers(0, 255).filter(lambda version: version not in SPOKEN))
def test_another_protocol_version_is_refused_rule_1(message: Message, version: int) -> None:
    whole = encode(message)

    with pytest.raises(MessageMalformed, match="protocol version"):
        decode(whole[:1] + bytes([version]) + whole[2:])


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_is_refused(noise: bytes) -> None:
    try:
        message = decode(noise)
    except MessageMalformed:
        return
    again = encode(message)
    assert noise == (again if noise[1] == PROTOCOL_VERSION else in_older_version(again))


PAIR = Membership(1, ("a", "b"))
LSN = Lsn(1 << 24)
CLUSTER = Cluster(7, 1 << 24, 18)


def greeting(**changes: Any) -> Greeting:
    return replace(Greeting(1, "a", b"id", PAIR, 1, LSN, LSN, LSN, LSN, TermHistory(), CLUSTER), **changes)


def of_term(term: int) -> list[Message]:
    """Everything that says that term somewhere."""
    history = TermHistory.of([(term, 1, 1)])
    return [
        greeting(term=term),
        greeting(term_history=history),
        greeting(membership=replace(PAIR, term=term)),
        VoteRequest(1, term, False, 1, LSN),
        VoteRequest(1, 1, False, term, LSN),
        VoteReply(1, term, False, True, 1, 1, LSN),
        VoteReply(1, 1, False, True, term, 1, LSN),
        VoteReply(1, 1, False, True, 1, term, LSN),
        Elected(1, term, LSN, history, LSN, LSN, CLUSTER),
        Append(1, term, 1, LSN, LSN, LSN, b"wal"),
        HistoryFile(1, term, 2, b""),
        StandNow(1, term),
        AppendReply(1, term, LSN, LSN, LSN),
        AppendReply(1, term, LSN, LSN, LSN, Feedback(xmin=3)),
    ]


@pytest.mark.parametrize("at", range(len(of_term(1))))
def test_a_term_that_none_can_follow_is_refused_rule_3(at: int) -> None:
    last = of_term(TERM_MAX)[at]
    assert decode(encode(last)) == last

    for term in (TERM_MAX + 1, (1 << 64) - 1):
        with pytest.raises(MessageMalformed, match="term"):
            decode(encode(of_term(term)[at]))


def test_an_oversized_append_is_refused() -> None:
    too_long = Append(1, 1, 1, Lsn(1), Lsn(1), Lsn(1), bytes(WAL_BYTES_MAX + 1))

    with pytest.raises(MessageMalformed, match="too long"):
        decode(encode(too_long))


def test_the_prefix_and_the_wal_make_the_append() -> None:
    append = Append(3, 7, 2, Lsn(0x1000000), Lsn(0x900000), Lsn(0x800000), b"wal")

    assert append_prefix(append) + append.wal == encode(append)


@given(
    st.builds(
        ControlState,
        name=names,
        node_id=st.binary(max_size=16),
        membership=memberships(),
        term=terms,
        voted_for=names,
        term_history=histories(),
        truncating_to_lsn=lsns,
        cluster=st.none() | clusters,
        log_start_lsn=lsns,
        local_start_lsn=lsns,
        commit_lsn=lsns,
        horizon_lsn=lsns,
        peer_ids=st.lists(st.tuples(names, st.binary(max_size=16)), max_size=3).map(tuple),
    )
)
def test_the_control_state_comes_back_as_it_was_saved(state: ControlState) -> None:
    payload = encode_control(state)

    assert decode_control(payload) == state
    assert payload[0] == 3
    for cut in range(len(payload)):
        with pytest.raises(MessageMalformed):
            decode_control(payload[:cut])


def test_a_control_state_of_before_there_were_seals_is_read() -> None:
    history = TermHistory.of([(1, 1, 4096), (3, 2, 8192)])
    state = ControlState("a", b"id", Membership(1, ("a", "b")), term=3, term_history=history)
    payload = encode_control(state)[: -(1 + 8 + 2)]  # Nor was there the rest of the membership.
    assert decode_control(b"\x02" + payload[1:]) == state
    at = payload.index((1).to_bytes(8) + (1).to_bytes(4) + (4096).to_bytes(8))
    entry = 8 + 4 + 8
    older = (
        b"\x01"
        + payload[1 : at + entry]
        + payload[at + entry + 1 : at + 2 * entry + 1]
        + payload[at + 2 * entry + 2 :]
    )

    assert decode_control(older) == state
