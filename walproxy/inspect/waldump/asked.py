"""Whether a command line of `walproxy inspect` is one for pg_waldump."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

# With these the reading is ours, and only its text is pg_waldump's.
_OURS: Final = frozenset({"--continue", "--json", "--help"})


def arguments_for(arguments: Sequence[str]) -> list[str] | None:
    """What pg_waldump would be given; None if it is not asked for.

    Args:
        arguments: what follows ``walproxy inspect``.
    """
    rest = list(arguments)
    if _OURS.intersection(rest):
        return None
    if "--format=pg_waldump" in rest:
        rest.remove("--format=pg_waldump")
        return rest
    for i, pair in enumerate(pairwise(rest)):
        if pair == ("--format", "pg_waldump"):
            return rest[:i] + rest[i + 2 :]
    return None
