"""Numbers: a small number for each value ever met; the native search knows nothing else of them."""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Numbers(Generic[Value]):
    """In the order in which they were met.

    Args:
        first: the number of the first value.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self._numbers: dict[Value, int] = {}
        self._values: list[Value] = []

    def __len__(self) -> int:
        return len(self._values)

    def of(self, value: Value) -> int:
        found = self._numbers.setdefault(value, len(self._values) + self._first)
        if found == len(self._values) + self._first:
            self._values.append(value)
        return found

    def value(self, number: int) -> Value:
        return self._values[number - self._first]
