"""Peer messages and the control state survive the wire; damaged ones are refused. docs/quorum.md rule 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import (
    WAL_BYTES_MAX,
    Append,
    AppendReply,
    Elected,
    Feedback,
    Greeting,
    HistoryFile,
    Message,
    SlotHorizon,
    VoteReply,
    VoteRequest,
    append_prefix,
    decode,
    encode,
)
from walproxy.quorum.state import Cluster, ControlState, decode_control, encode_control
from walproxy.quorum.terms import TermEntry, TermHistory
from walproxy.wire.lsn import Lsn

lsns = st.integers(0, 2**64 - 1).map(Lsn)
terms = st.integers(0, 2**64 - 1)
u32s = st.integers(0, 2**32 - 1)
generations = st.integers(1, 2**32 - 1)
names = st.text(max_size=12)
clusters = st.builds(Cluster, st.integers(1, 2**64 - 1), u32s, st.integers(0, 2**16 - 1))


@st.composite
def histories(draw: st.DrawFn, min_size: int = 0) -> TermHistory:
    keys = draw(st.lists(st.tuples(st.integers(1, 2**63), st.integers(1, 9)), min_size=min_size, max_size=5))
    keys = sorted(set(keys))
    starts = sorted(draw(st.lists(st.integers(1, 2**63), min_size=len(keys), max_size=len(keys))))
    return TermHistory(tuple(TermEntry(*key, Lsn(start)) for key, start in zip(keys, starts, strict=True)))


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


@given(messages, st.integers(0, 255).filter(lambda version: version != 1))
def test_another_protocol_version_is_refused(message: Message, version: int) -> None:
    whole = encode(message)

    with pytest.raises(MessageMalformed, match="protocol version"):
        decode(whole[:1] + bytes([version]) + whole[2:])


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_is_refused(noise: bytes) -> None:
    try:
        message = decode(noise)
    except MessageMalformed:
        return
    assert encode(message) == noise


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
    for cut in range(len(payload)):
        with pytest.raises(MessageMalformed):
            decode_control(payload[:cut])
