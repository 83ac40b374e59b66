"""The command line: `walproxy run` and the commands of the other packages."""

import importlib
import importlib.util
import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, cast

import structlog
import typer

from walproxy import member
from walproxy.config import load_settings
from walproxy.errors import ConfigInvalid, WalproxyError
from walproxy.run import run as run_node

app = typer.Typer(
    name="walproxy",
    help="A WAL quorum for stock PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# typer has brought its own click since 0.16, and does not export this class.
_UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
_log = structlog.get_logger(__name__)


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


app.add_typer(member.app, name="member")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; every key may also stand in WALPROXY_<KEY>.")
]


@app.callback()
def group() -> None:
    """A WAL quorum for stock PostgreSQL."""


@app.command()
def run(
    config: ConfigOption = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show what is in force, and end.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
) -> None:
    """Run a node: vote, keep WAL, lead if elected, serve what is committed."""
    settings = load_settings(config)
    if print_config:
        typer.echo(json.dumps(settings.printable(), indent=2))
        return
    _log_to_stderr(log_level)
    run_node(settings)


def main() -> None:
    """Run the command line, and end with the code that says how."""
    sys.exit(_run_app())


def _run_app() -> int:
    """Run a command; gives the exit code."""
    try:
        code: int | None = app(standalone_mode=False)
    except WalproxyError as error:
        typer.echo(f"walproxy: {error}", err=True)
        return error.exit_code
    except _UsageError as error:
        error.show()
        return ConfigInvalid.exit_code
    except typer.Abort:
        return WalproxyError.exit_code
    except Exception:  # noqa: BLE001 - the program's supervisor: a bug ends it with a code of its own
        if not structlog.is_configured():
            _log_to_stderr(LogLevel.INFO)
        _log.exception("unexpected error")
        return WalproxyError.exit_code
    return code or 0


def _log_to_stderr(level: LogLevel) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


# Each of these modules, where it is there, has a function that becomes the command of that name.
_COMMANDS: Final = {
    "inspect": ("walproxy.inspect.command", "inspect"),
    "names": ("walproxy.inspect.catalog", "names"),
    "status": ("walproxy.status", "command"),
    "check": ("walproxy.check", "command"),
    "transfer": ("walproxy.handover", "transfer"),
    "seal": ("walproxy.handover", "seal"),
    "unseal": ("walproxy.handover", "unseal"),
    "promote-check": ("walproxy.promotable", "command"),
}
for _name, (_module, _function) in _COMMANDS.items():
    _package = _module.rpartition(".")[0]
    if importlib.util.find_spec(_package) is not None and importlib.util.find_spec(_module) is not None:
        _imported = importlib.import_module(_module)
        _class = getattr(_imported, "COMMAND_CLASS", None)
        app.command(name=_name, cls=_class)(getattr(_imported, _function))
