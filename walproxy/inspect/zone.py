"""The reader's time zone as the native core wants it: a list of steps."""

import time
from itertools import pairwise
from typing import Final

_WEEK_S: Final = 7 * 86_400
_LAST_S: Final = 4_102_444_800  # 2100-01-01; from then on the last step holds.


def local_steps() -> list[tuple[int, int, str]]:
    """From this second since 1970 on: seconds east of UTC, and the zone's abbreviation."""
    steps = [(0, *_at(0))]
    for before, after in pairwise(range(0, _LAST_S, _WEEK_S)):
        if _at(after) != _at(before):
            low, high = before, after
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _at(middle) == _at(before) else (low, middle)
            steps.append((high, *_at(high)))
    return steps


def _at(unix_s: int) -> tuple[int, str]:
    local = time.localtime(unix_s)
    return local.tm_gmtoff, local.tm_zone
