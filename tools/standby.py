"""Stock standbys made from a base backup, and the comparison of two servers row for row."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from psycopg import sql

from tools.server import Server
from tools.wait import until

# Unlogged and temporary tables are not replicated; statistics and the like are not rows of the user's.
TABLES = """
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relpersistence = 'p'
      and n.nspname <> 'information_schema' and n.nspname !~ '^pg_temp'
    order by 1, 2
"""
DATABASES = "select datname from pg_database where datallowconn order by 1"


def make_standby(
    folder: Path, source: Server, upstream: str, *, name: str = "standby", slot: str = ""
) -> Server:
    """A standby that follows ``upstream``, not started, from a new base backup of ``source``.

    Args:
        upstream: the conninfo of a walproxy node, or of several; not of ``source``.
        slot: its ``primary_slot_name``.
    """
    standby = Server(folder, source.bindir, name=name)
    source.base_backup(standby.data_dir)
    return follow(standby, upstream, slot=slot)


def follow(standby: Server, upstream: str, *, slot: str = "") -> Server:
    """Make a data directory that is a base backup a standby of ``upstream``."""
    (standby.data_dir / "standby.signal").touch()
    return standby.configure(
        primary_conninfo=upstream,
        primary_slot_name=slot,
        restore_command="",
        synchronous_standby_names="",
        hot_standby=True,
        wal_retrieve_retry_interval="200ms",
        max_standby_streaming_delay=-1,
    )


def wait_for_replay(standby: Server, lsn: str, *, deadline_s: float = 60.0) -> None:
    """Until ``standby`` has replayed what ends at ``lsn`` or before it."""
    query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
    until(
        lambda: standby.value(query, lsn), what=f"{standby.process.name} replays {lsn}", deadline_s=deadline_s
    )


def row_differences(one: Server, other: Server) -> Iterator[str]:
    """One line for each table whose rows, in their physical order, are not the same on both."""
    for (dbname,) in one.query(DATABASES):
        tables = one.query(TABLES, dbname=dbname)
        if tables != other.query(TABLES, dbname=dbname):
            yield f"{dbname}: the tables are not the same"
            continue
        for schema, table in tables:
            pairs = itertools.zip_longest(
                _rows(one, dbname, schema, table), _rows(other, dbname, schema, table)
            )
            for number, (ours, theirs) in enumerate(pairs):
                if ours != theirs:
                    yield f"{dbname}.{schema}.{table}, part {number}: {ours!r:.200} / {theirs!r:.200}"
                    break


def _rows(server: Server, dbname: str, schema: str, table: str) -> Iterator[bytes]:
    query = sql.SQL("copy (select ctid, * from {}) to stdout").format(sql.Identifier(schema, table))
    # A scan that begins in the middle of a table, where another one is, gives another order.
    options = "-c synchronize_seqscans=off -c max_parallel_workers_per_gather=0"
    with (
        server.connect(dbname=dbname, options=options) as connection,
        connection.cursor() as cursor,
        cursor.copy(query) as copy,
    ):
        yield from map(bytes, copy)
