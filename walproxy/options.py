"""What the operators' commands share: options, which nodes they mean, where their words go."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, RenderableType

from walproxy.config import (
    Settings,
    checked_conninfo,
    is_in_environment,
    load_settings,
    without_password,
)
from walproxy.errors import ConfigInvalid

_WIDTH_MIN: Final = 200  # Of what no terminal shows: a table that is cut off helps nobody.

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file of any node of the group; or WALPROXY_<KEY> in the environment."
    ),
]
NodeOption = Annotated[
    list[str] | None,
    typer.Option("--node", help="In place of a file: libpq connection string of a node; repeat."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def which_group(config: Path | None, nodes: list[str] | None) -> tuple[dict[str, str], Settings | None]:
    """The nodes to ask, by name, and the settings if they came from there.

    Raises:
        ConfigInvalid: none is named, two ways at once, or a name is no connection string.
    """
    if nodes and config is not None:
        raise ConfigInvalid("say which group one way: --config FILE, or --node CONNINFO for each node")
    if nodes:
        try:
            return {without_password(checked_conninfo(text)): text for text in nodes}, None
        except ValueError as error:
            raise ConfigInvalid(f"--node: {error}") from error
    if config is None and not is_in_environment():
        raise ConfigInvalid("say which group: --config FILE, or --node CONNINFO for each node")
    settings = load_settings(config)
    return settings.group, settings


def tell(words: str) -> None:
    """What goes on meanwhile: not part of the answer."""
    typer.echo(words, err=True)


def show(answer: RenderableType) -> None:
    """Print an answer for people. Text of nodes and servers is shown as it is, brackets and all."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_MIN)
    console.print(answer)
