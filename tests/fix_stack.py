"""A primary with walproxy nodes and a pageserver, as real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fix_pg import NewServer
from tools.process import Process
from tools.stack import Stack

NewStack = Callable[..., Stack]


@pytest.fixture
def new_stack(folder: Path, new_server: NewServer, watched: list[Process]) -> Iterator[NewStack]:
    """A function that makes a stack, not started: ``new_stack(nodes=3, primary={"fsync": False})``."""
    made: list[Stack] = []

    def new(*, nodes: int = 3, primary: dict[str, object] | None = None, **settings: object) -> Stack:
        stack = Stack(folder / "stack", new_server(**(primary or {})), nodes=nodes, places=None, **settings)
        made.append(stack)
        watched.extend([*stack.nodes, stack.pageserver])
        return stack

    yield new
    for stack in made:
        stack.kill()


@pytest.fixture
def stack(new_stack: NewStack) -> Stack:
    """Three nodes and a pageserver behind a running primary that waits for them."""
    return new_stack().start()
