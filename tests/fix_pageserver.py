"""A pageserver straight behind a primary: no quorum between them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.process import Process
from tools.server import Server
from tools.stack import NOT_YET, Program
from tools.wait import until

NewPageserver = Callable[..., Program]


@pytest.fixture
def new_pageserver(folder: Path, watched: list[Process]) -> Iterator[NewPageserver]:
    """A function that makes a pageserver of these walproxy nodes and this primary, not started."""
    made: list[Program] = []

    def new(primary: Server, *nodes: str, **settings: object) -> Program:
        program = Program("pageserver", f"pageserver-{len(made)}", folder / f"pageserver-{len(made)}")
        configure(program, primary, *nodes, **settings)
        made.append(program)
        watched.append(program)
        return program

    yield new
    for program in made:
        program.kill()


def configure(program: Program, primary: Server, *nodes: str, **settings: object) -> None:
    program.write_config(
        listen=f"127.0.0.1:{program.port}",
        data_dir=str(program.data_dir),
        walproxy=list(nodes or [primary.conninfo()]),
        primary_conninfo=primary.conninfo(),
        **{"lsn_wait_timeout_s": 20} | settings,
    )


def serving(pageserver: Program) -> dict[str, Any]:
    """Its status, once it can answer reads."""

    def look() -> dict[str, Any] | None:
        assert pageserver.alive, f"ended with {pageserver.exit_code}:\n{pageserver.tail(20)}"
        status = pageserver.status()
        return status if status["state"] == "serving" else None

    return until(look, what="the pageserver serves", deadline_s=60, ignoring=NOT_YET)
