"""Membership: which one an acceptor takes over."""

from dataclasses import replace

from tests.unit.quorum_world import TRIO, finish, new_acceptor, with_log
from walproxy.quorum.membership import Membership


def test_the_membership_of_a_higher_generation_is_taken_over_rule_19() -> None:
    acceptor = with_log()
    joint = Membership(2, TRIO.members, ("a", "b", "d"))

    acceptor.on_greeting("b", replace(new_acceptor("b").greeting(), generation=2, membership=joint))

    assert finish(acceptor).control is not None
    assert acceptor.state.membership == joint


def test_a_membership_that_an_administrator_gives_is_taken_over_if_it_is_newer_and_ours_rule_19() -> None:
    acceptor = with_log()
    joint = Membership(2, TRIO.members, ("a", "b", "d"))

    acceptor.adopt(Membership(2, ("b", "c", "d")))
    acceptor.adopt(Membership(1, ("a", "x", "y")))
    assert acceptor.state.membership == TRIO

    acceptor.adopt(joint)

    work = finish(acceptor)
    assert work.control is not None
    assert work.control.membership == joint
