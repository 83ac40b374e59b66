"""Names of relations from the catalogs of a live server, and `walproxy names`, which saves them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from walproxy.errors import WalproxyError
from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Named, Names

_CONNECT_TIMEOUT_S: Final = 10
_DATABASES: Final = """
    select datname, datallowconn and has_database_privilege(oid, 'connect') from pg_catalog.pg_database
    order by datname
"""
# Mapped relations have their file's number in the relation map only: pg_relation_filenode knows.
_RELATIONS: Final = """
    select case c.reltablespace when 0 then d.dattablespace else c.reltablespace end::int8,
           case when c.relisshared then 0 else d.oid::int8 end,
           pg_catalog.pg_relation_filenode(c.oid)::int8,
           case when c.relisshared then '' else d.datname end,
           n.nspname, c.relname, c.relkind::text,
           coalesce(tn.nspname || '.' || t.relname, '')
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
    left join pg_catalog.pg_index i on i.indexrelid = c.oid
    left join pg_catalog.pg_class t on t.reltoastrelid = coalesce(i.indrelid, c.oid)
    left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
    where pg_catalog.pg_relation_filenode(c.oid) is not null and c.relpersistence <> 't'
"""


def read_names(sources: Sequence[str]) -> Names:
    """The names that files or servers know, of which the last knows best.

    Raises:
        TargetUnusable: a source cannot be read, or they are of several clusters.
    """
    names = Names()
    for source in sources:
        path = Path(source)
        if path.exists():
            names = names.with_newer(Names.load(path))
        elif "=" in source or "://" in source:
            names = names.with_newer(ask(source))
        else:
            raise TargetUnusable("no such file of names, and no conninfo either", names=source)
    return names


def ask(conninfo: str) -> Names:
    """The names of all relations of all databases that can be connected to.

    Raises:
        TargetUnusable: no connection.
    """
    try:
        with _connect(conninfo, None) as connection:
            [(system_id,)] = connection.execute(
                "select system_identifier from pg_catalog.pg_control_system()"
            ).fetchall()
            databases = connection.execute(_DATABASES).fetchall()
    except psycopg.Error as error:
        raise TargetUnusable("cannot ask for names", reason=_first_line(error)) from error
    relations: list[Named] = []
    unread: dict[str, str] = {}
    for database, may_connect in databases:
        if not may_connect:
            unread[database] = "connections are not allowed"
            continue
        try:
            relations += _relations(conninfo, database)
        except psycopg.Error as error:
            unread[database] = _first_line(error)
    return Names.of(relations, system_id=system_id, unread=unread)


def _relations(conninfo: str, database: str) -> Iterator[Named]:
    with _connect(conninfo, database) as connection:
        for spc, db, rel, *texts in connection.execute(_RELATIONS).fetchall():
            yield Named((spc, db, rel), *texts)


def _connect(conninfo: str, database: str | None) -> psycopg.Connection[tuple[Any, ...]]:
    """``database``: None for the one of the conninfo, or postgres."""
    wanted = database or conninfo_to_dict(conninfo).get("dbname") or "postgres"
    full = make_conninfo(conninfo, dbname=wanted, connect_timeout=_CONNECT_TIMEOUT_S)
    return psycopg.connect(full, autocommit=True, application_name="walproxy names")


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


def names(
    server: Annotated[str, typer.Argument(help="A server's conninfo.")],
    to: Annotated[Path | None, typer.Option("--to", help="The file to write; else they are printed.")] = None,
) -> None:
    """Save the names of a server's relations, for `walproxy inspect --names` where the server is not at hand.

    Relations get new files when they are rewritten (VACUUM FULL, TRUNCATE, …): names hold for the WAL of about the
    time when they were saved.
    """
    try:
        found = ask(server)
        text = found.dump()
        if to is None:
            typer.echo(text, nl=False)
        else:
            to.write_text(text, "utf-8")
    except OSError as error:
        typer.echo(f"walproxy names: cannot write the file: {error.strerror} file={to}", err=True)
        raise typer.Exit(TargetUnusable.exit_code) from error
    except WalproxyError as error:
        typer.echo(f"walproxy names: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    for database, reason in found.unread.items():
        typer.echo(f"walproxy names: left out database={database} reason={reason}", err=True)
