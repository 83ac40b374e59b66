"""The choice of layers to merge."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pageserver.compaction import FAN_IN, layers_to_merge
from pageserver.manifest import LayerEntry


def layers(levels: list[int]) -> list[LayerEntry]:
    base = LayerEntry("base", 0, 0, 1, 0)
    return [base, *(LayerEntry(f"{at}", at, at + 1, 1, level) for at, level in enumerate(levels))]


def test_few_layers_are_left_alone() -> None:
    assert layers_to_merge(layers([0] * (FAN_IN - 1))) is None


def test_the_base_is_never_merged() -> None:
    assert layers_to_merge(layers([0] * FAN_IN)) == range(1, FAN_IN + 1)


def test_neighbours_of_one_level_are_merged_and_others_are_not() -> None:
    assert layers_to_merge(layers([2, 1, *[0] * FAN_IN])) == range(3, 3 + FAN_IN)
    assert layers_to_merge(layers([0, 0, 0, 0, 1, 0, 0, 0, 0])) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_however_many_are_written_few_stay(count: int) -> None:
    levels: list[int] = []
    written = 0

    for _ in range(count):
        levels.append(0)
        while (found := layers_to_merge(layers(levels))) is not None:
            merged = levels[found.start - 1 : found.stop - 1]
            assert len(set(merged)) == 1
            written += len(merged)
            levels[found.start - 1 : found.stop - 1] = [merged[0] + 1]

    assert len(levels) <= (FAN_IN - 1) * 4
    assert levels == sorted(levels, reverse=True)
