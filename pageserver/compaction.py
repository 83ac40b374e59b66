"""Which layers to merge next, so that a read has few of them to look into."""

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from pageserver.manifest import LayerEntry

FAN_IN: Final = 8
"""So many neighbours of one level become one of the next: at most seven layers a level stay, and an entry is
written once a level."""


def layers_to_merge(layers: Sequence[LayerEntry]) -> range | None:
    """Places of neighbouring layers that should become one; None if all is well.

    Args:
        layers: oldest first. The first holds the base backup, and stays as it is.
    """
    start = 1
    for _level, group in groupby(layers[1:], key=lambda layer: layer.level):
        length = len(list(group))
        if length >= FAN_IN:
            return range(start, start + length)
        start += length
    return None
