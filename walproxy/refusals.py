"""Why a node does not do what an operator asks, as errors over SQL: programs decide by their codes."""

from typing import Final

from walproxy.wire.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, SqlError

NOT_PROPOSER: Final = "WP001"  # The detail names the one that is, if it is known.
NOT_IN_FORCE: Final = "WP002"
INVALID: Final = "22023"  # ERRCODE_INVALID_PARAMETER_VALUE


def not_proposer(name: str, leader: str) -> SqlError:
    """Nothing was changed: ask the proposer.

    Args:
        name: this node's.
        leader: who is, as far as it knows; empty if nobody.
    """
    return SqlError(
        NOT_PROPOSER,
        f"{name} is not the proposer",
        detail=leader or None,
        hint="Ask the proposer." if leader else "Nobody is known to be: look at walproxy status.",
    )


def not_in_force() -> SqlError:
    """Nothing was changed: a majority does not know yet who the members are. It will in a moment."""
    return SqlError(
        NOT_IN_FORCE, "the members of now are not in force on a majority", hint="Ask again in a moment."
    )


def not_now(why: str) -> SqlError:
    """Nothing was changed, or it is not known to be."""
    return SqlError(OBJECT_NOT_IN_PREREQUISITE_STATE, why)


def invalid(why: str) -> SqlError:
    """What is asked for makes no sense, whatever the state."""
    return SqlError(INVALID, why)
