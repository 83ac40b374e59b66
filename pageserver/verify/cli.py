"""The command `pageserver verify`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pageserver.config import load_settings
from pageserver.verify.database import Options
from pageserver.verify.errors import PrimaryUnsuitable
from pageserver.verify.report import Report, sorted_excuses
from pageserver.verify.run import verify
from pageserver.verify.stopped import verify_stopped
from walproxy.wire.aio import parse_address

_DIFFERENCES_SHOWN_MAX = 50


def command(
    *,
    primary: Annotated[
        str | None, typer.Option(help="libpq connection string of the live server, as a superuser.")
    ] = None,
    pageserver: Annotated[str | None, typer.Option(help="libpq connection string of the pageserver.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration of the pageserver, instead of its connection string.")
    ] = None,
    pgdata: Annotated[
        Path | None, typer.Option(help="Compare the data directory of a stopped server instead.")
    ] = None,
    relation: Annotated[
        list[str] | None, typer.Option(help="Only this table, with its indexes; may be repeated.")
    ] = None,
    database: Annotated[list[str] | None, typer.Option(help="Only this database; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Parallel connections.")] = 4,
    create_extension: Annotated[
        bool, typer.Option("--create-extension", help="Create pageinspect where it is missing.")
    ] = False,
    wait_s: Annotated[float, typer.Option(help="How long the pageserver may lag behind.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare every block of every permanent relation with the live server, or with a stopped one's files.

    Exit codes: 0 all are the same, 3 one is not, 2 something could not be compared, 1 an option or a server does
    not fit, 5 the two are of different clusters.
    """
    if (primary is None) == (pgdata is None):
        raise PrimaryUnsuitable("give either --primary or --pgdata")
    ours = pageserver or _listener(config)
    report = Report()
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} pages"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=as_json or not console.is_terminal
    ) as progress:
        bar = progress.add_task("", total=None)

        def advance(what: str, pages: int) -> None:
            progress.update(bar, advance=pages, description=what)

        if pgdata is not None:
            run = verify_stopped(pgdata, ours, report, jobs=jobs, wait_s=wait_s, advance=advance)
        else:
            assert primary is not None
            options = Options(
                primary=primary,
                pageserver=ours,
                relations=tuple(relation or ()),
                databases=tuple(database or ()),
                jobs=jobs,
                create_extension=create_extension,
                wait_s=wait_s,
            )
            run = verify(options, report, advance=advance)
        asyncio.run(run)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        print_report(report, Console())
    raise typer.Exit(report.exit_code)


def print_report(report: Report, console: Console) -> None:
    """Show a report to a person."""
    table = Table("", "forks", "pages", "identical", "different", box=None)
    for section, counts in report.counts.items():
        if counts.pages or counts.forks:
            numbers = (counts.forks, counts.pages, counts.identical, counts.different)
            style = "red" if counts.different else ""
            table.add_row(section.value, *(f"{number:,}" for number in numbers), style=style)
    console.print(table)
    if report.excuses:
        masked = Table("exception", "pages", "why", box=None, title="identical but for", title_justify="left")
        for excuse, number in sorted_excuses(report.excuses):
            masked.add_row(excuse.name.lower(), f"{number:,}", excuse.value)
        console.print(masked)
    for title, lines in (
        ("note", report.notes),
        ("vanished while comparing", report.vanished),
        ("NOT CHECKED", report.not_checked),
    ):
        for line in lines:
            console.print(f"{title}: {line}", markup=False, highlight=False, soft_wrap=True)
    for difference in report.differences[:_DIFFERENCES_SHOWN_MAX]:
        console.print(f"DIFFERENT {difference}", markup=False, highlight=False, soft_wrap=True)
    if (more := report.differences_found - _DIFFERENCES_SHOWN_MAX) > 0:
        console.print(f"… and {more:,} more", markup=False)
    verdict = "identical" if not report.exit_code else f"{report.differences_found:,} differences"
    console.print(f"{report.pages:,} pages in {report.elapsed_s:.1f} s: {verdict}", markup=False)


def _listener(config: Path | None) -> str:
    address = parse_address(load_settings(config).listen)
    if address.path:
        path = Path(address.path)
        return make_conninfo("", host=str(path.parent), port=path.name.removeprefix(".s.PGSQL."))
    return make_conninfo("", host=address.host, port=address.port)
