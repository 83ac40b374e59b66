"""The answers of `walproxy inspect` beyond records and totals: which one was asked for, and with what."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Key, Names
from walproxy.inspect.page import parse_page, show_page
from walproxy.inspect.parquet import write_file
from walproxy.inspect.query import run_query
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.transactions import Around, Asked, show_transactions
from walproxy.inspect.usage import show_usage
from walproxy.inspect.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Question:
    """At most one of these may be asked."""

    to: Path | None = None
    sql: str | None = None
    page: tuple[Key, int] | None = None
    transactions: Asked | None = None
    usage: bool = False

    @property
    def options(self) -> list[str]:
        """The options that ask something."""
        asked = {
            "--to": self.to,
            "--sql": self.sql,
            "--page": self.page,
            "--transactions": self.transactions,
            "--usage": self.usage or None,
        }
        return [option for option, value in asked.items() if value is not None]


def question(
    *,
    to: Path | None,
    sql: str | None,
    page: str | None,
    transactions: bool,
    at: str | None,
    within_s: float,
    usage: bool,
    wanted: Wanted,
    names: Names | None,
) -> Question | None:
    """What is asked beyond records and totals; None: nothing is.

    Raises:
        TargetUnusable: options that do not go together, or what they name is not known.
    """
    if at is not None and not transactions:
        raise TargetUnusable("option --at requires option --transactions")
    asked: Asked | None = None
    if transactions:
        if (
            wanted.rmgrs is not None
            or wanted.fork is not None
            or wanted.block is not None
            or wanted.full_page
        ):
            raise TargetUnusable(
                "option --transactions is about whole transactions: it takes no filter of records"
            )
        around = None if at is None else Around.parse(at, within_s)
        asked = Asked(around, wanted.xid, wanted.relation, wanted.limit)
    if page is not None and (wanted.relation is not None or wanted.block is not None):
        raise TargetUnusable(
            "option --page names relation and block: it takes neither --relation nor --block"
        )
    parsed = None if page is None else parse_page(page, names)
    made = Question(to, sql, parsed, asked, usage)
    if len(made.options) > 1:
        raise TargetUnusable("only one of these options may be given", options=" ".join(made.options))
    return made if made.options else None


def answer(
    asked: Question, read: Read, wanted: Wanted, names: Names | None, *, console: Console, as_json: bool
) -> Reading:
    """Answer it on standard output, or in the file that it names.

    Raises:
        TargetUnusable: something does not fit, or an extra is missing.
        WalDamaged: as `Read`.
    """
    if asked.to is not None:
        return write_file(read, wanted, asked.to, names)
    if asked.sql is not None:
        return run_query(read, wanted, asked.sql, names, console=console, as_json=as_json)
    if asked.page is not None:
        return show_page(read, wanted, asked.page, names, console=console, as_json=as_json)
    if asked.transactions is not None:
        return show_transactions(read, wanted, asked.transactions, names, console=console, as_json=as_json)
    return show_usage(read, wanted, names, console=console, as_json=as_json)
