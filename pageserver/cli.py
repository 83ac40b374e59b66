"""The command line: `pageserver run`, `pageserver status`, and the commands of the other packages."""

import asyncio
import importlib
import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Final, cast

import typer
from psycopg.conninfo import make_conninfo
from rich.console import Console

from pageserver import server, status
from pageserver.config import load_settings
from pageserver.errors import ConfigInvalid, ExitCode, PageserverError
from pageserver.log import log_to_stderr
from walproxy.wire.aio import parse_address

app = typer.Typer(
    name="pageserver",
    help="Any page of a stock PostgreSQL at any LSN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Each of these modules, where it is there, has a function `command` with the options of its command.
_COMMANDS: Final = {
    "verify": "pageserver.verify.cli",
    "check-wal": "pageserver.checkwal",
    "write-files": "pageserver.writefiles",
}

# typer has brought its own click since 0.16, and does not export this class.
_UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; every key may also stand in PAGESERVER_<KEY>.")
]


@app.command()
def run(
    config: ConfigOption = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show what is in force, and end.")
    ] = False,
) -> None:
    """Take a base backup if there is none, follow the WAL, serve pages."""
    settings = load_settings(config)
    if print_config:
        typer.echo(json.dumps(settings.printable(), indent=2))
        return
    log_to_stderr()
    asyncio.run(server.run(settings))


@app.command(name="status")
def show_status(
    config: ConfigOption = None,
    node: Annotated[str | None, typer.Option(help="libpq connection string of the pageserver.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how far a running pageserver is."""
    found = status.ask(_listener(config) if node is None else node)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        status.print_table(found, Console())


def main() -> None:
    """Run the command line, and end with the code that says how."""
    sys.exit(_run_app())


def _run_app() -> int:
    """Run a command; gives the exit code."""
    try:
        code: int | None = app(standalone_mode=False)
    except PageserverError as error:
        typer.echo(f"pageserver: {error}", err=True)
        if error.hint is not None:
            typer.echo(f"hint: {error.hint}", err=True)
        return error.exit_code
    except _UsageError as error:
        error.show()
        return ExitCode.USAGE
    except typer.Abort:
        return ExitCode.RUNTIME
    except Exception:  # noqa: BLE001 - the program's supervisor: a bug ends it with a code of its own
        traceback.print_exc()
        return ExitCode.RUNTIME
    return code or ExitCode.STOPPED


def _listener(config: Path | None) -> str:
    """How to reach the pageserver that this configuration starts."""
    address = parse_address(load_settings(config).listen)
    if address.path:
        path = Path(address.path)
        prefix = ".s.PGSQL."
        if not path.name.startswith(prefix):
            raise ConfigInvalid(
                f"libpq only reaches sockets named {prefix}<port>: give --node", listen=address
            )
        return make_conninfo(
            "", host=str(path.parent), port=path.name.removeprefix(prefix), user="pageserver"
        )
    return make_conninfo("", host=address.host, port=address.port, user="pageserver")


for _name, _module in _COMMANDS.items():
    _package = _module.rpartition(".")[0]
    if importlib.util.find_spec(_package) is not None and importlib.util.find_spec(_module) is not None:
        app.command(name=_name)(importlib.import_module(_module).command)
