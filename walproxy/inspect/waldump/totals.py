"""Totals as pg_waldump prints them."""

from collections.abc import Sequence
from typing import Final

from walcore._native import rmgr_names
from walproxy.wire.lsn import Lsn

Row = tuple[str, str, int, int, int]
_HEAD: Final = ("Type", "N", "(%)", "Record size", "(%)", "FPI size", "(%)", "Combined size", "(%)")
_LINES: Final = ("----", "-", "---", "-----------", "---", "--------", "---", "-------------", "---")


def text(rows: Sequence[Row], *, by_record: bool, start_lsn: Lsn, end_lsn: Lsn) -> str:
    """The table; nothing if no record was counted.

    Args:
        rows: resource manager, record, how many, their bytes without images, bytes of their images.
        by_record: a line for each kind of record, not for each resource manager.
        start_lsn: start of the first record read.
        end_lsn: end of the last one counted.

    Source:
        ``XLogDumpDisplayStats`` in ``src/bin/pg_waldump/pg_waldump.c``.
    """
    if not rows:
        return ""
    shown = list(rows) if by_record else _by_rmgr(rows)
    count, rec_len, fpi_len = (sum(numbers) for numbers in zip(*(row[2:] for row in rows), strict=True))
    lines = [
        f"WAL statistics between {start_lsn} and {end_lsn}:",
        *(_columns(cells) for cells in (_HEAD, _LINES)),
    ]
    for rmgr, record, n, rec_bytes, fpi_bytes in shown:
        parts = (n, rec_bytes, fpi_bytes, rec_bytes + fpi_bytes)
        wholes = (count, rec_len, fpi_len, rec_len + fpi_len)
        name = f"{rmgr}/{record}" if by_record else rmgr
        shares = (
            f" {part:20} ({_percent(part, whole):>6})" for part, whole in zip(parts, wholes, strict=True)
        )
        lines.append(f"{name:27}{''.join(shares)}")
    lines.append(_columns(("", "--------", "", "--------", "", "--------", "", "--------")))
    whole = rec_len + fpi_len
    rec_share, fpi_share = (f"[{_percent(part, whole)}%]" for part in (rec_len, fpi_len))
    lines.append(
        f"{'Total':27} {count:20} {'':9}{rec_len:20} {rec_share:9}{fpi_len:20} {fpi_share:9}{whole:20} {'[100%]':6}"
    )
    return "".join(f"{line}\n" for line in lines)


def _by_rmgr(rows: Sequence[Row]) -> list[Row]:
    """Every built-in resource manager, and those extensions' own that occurred."""
    sums = dict.fromkeys(rmgr_names(), (0, 0, 0))
    for rmgr, _, count, rec_len, fpi_len in rows:
        before = sums.get(rmgr, (0, 0, 0))
        sums[rmgr] = (before[0] + count, before[1] + rec_len, before[2] + fpi_len)
    return [(rmgr, "", *numbers) for rmgr, numbers in sums.items()]


def _columns(cells: Sequence[str]) -> str:
    name, *others = cells
    return " ".join([f"{name:27}", *(f"{cell:>{8 if i % 2 else 20}}" for i, cell in enumerate(others))])


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}"
