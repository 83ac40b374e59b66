"""Records and totals as tables."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from walproxy.inspect.reading import Reading

BATCH: Final = 400
_COLUMNS: Final = (("lsn", 17), ("length", 9), ("xid", 10), ("rmgr", 11), ("record", 20))


def print_records(console: Console, records: Iterable[Mapping[str, Any]], *, header: bool) -> None:
    """One row a record; ``header`` for the first rows of an output."""
    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in _COLUMNS:
        right = name in {"lsn", "length", "xid"}
        table.add_column(name, min_width=width, justify="right" if right else "left", no_wrap=True)
    table.add_column("blocks and full-page images", overflow="fold")
    for record in records:
        blocks = "\n".join(_block(block) for block in record["blocks"])
        cells = (record["lsn"], str(record["total_length"]), str(record["xid"] or ""), record["rmgr"])
        table.add_row(*cells, record["record"], blocks)
    console.print(table)


def _block(block: Mapping[str, Any]) -> str:
    fork = "" if block["fork"] == "main" else f" {block['fork']}"
    text = f"#{block['id']} {block.get('name') or block['relation']}{fork} {block['block']}"
    if image := block.get("image"):
        packed = "" if image["compression"] == "none" else f" {image['compression']}"
        purpose = "fpi" if image["apply"] else "fpi for verification"
        text += f" {purpose} {image['length']}{packed}"
        if image["hole_length"]:
            text += f" hole {image['hole_offset']}+{image['hole_length']}"
    return text


def print_stats(console: Console, reading: Reading, *, by_record: bool) -> None:
    """Totals by resource manager, or by record, with the share of full-page images."""
    rows = stats_rows(reading, by_record=by_record)
    records, rec_len, fpi_len = (
        sum(row[key] for row in rows) for key in ("count", "record_bytes", "fpi_bytes")
    )
    title = f"WAL between {reading.first_lsn} and {reading.end_lsn}, PostgreSQL {reading.major}"
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("type", footer="total")
    for name, footer in (
        ("records", f"{records}"),
        ("%", ""),
        ("record bytes", f"{rec_len}"),
        ("%", ""),
        ("image bytes", f"{fpi_len}"),
        ("%", ""),
        ("all bytes", f"{rec_len + fpi_len}"),
        ("%", ""),
        ("images' share", _share(fpi_len, rec_len + fpi_len)),
    ):
        table.add_column(name, justify="right", footer=footer)
    for row in rows:
        kind = f"{row['rmgr']}/{row['record']}" if by_record else row["rmgr"]
        total = row["record_bytes"] + row["fpi_bytes"]
        cells: list[str] = []
        for part, whole in (
            (row["count"], records),
            (row["record_bytes"], rec_len),
            (row["fpi_bytes"], fpi_len),
            (total, rec_len + fpi_len),
        ):
            cells += [str(part), _share(part, whole)]
        table.add_row(kind, *cells, _share(row["fpi_bytes"], total))
    console.print(table)


def stats_rows(reading: Reading, *, by_record: bool) -> list[dict[str, Any]]:
    """Totals as values: ``rmgr``, ``record`` (if asked for), ``count``, ``record_bytes``, ``fpi_bytes``."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (rmgr, record), totals in reading.stats.items():
        key = (rmgr, record if by_record else "")
        row = rows.setdefault(key, {"rmgr": rmgr} | ({"record": record} if by_record else {}))
        for name, value in zip(("count", "record_bytes", "fpi_bytes"), totals, strict=True):
            row[name] = row.get(name, 0) + value
    return list(rows.values())


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0.00"
