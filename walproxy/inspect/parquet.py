"""`walproxy inspect --to`: records as a Parquet or Arrow file."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from walcore._native import WalColumns, WalInspector
from walproxy.inspect.columns import Arrow
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.names import Names
from walproxy.inspect.optional import optional
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.wanted import Wanted

_KINDS: Final = (".parquet", ".arrow")


def write_file(read: Read, wanted: Wanted, path: Path, names: Names | None) -> Reading:
    """Write what is wanted; at damage, what came before it. The file is there once it is whole.

    Raises:
        TargetUnusable: no such kind of file, it cannot be written, or pyarrow is missing.
        WalDamaged: as `Read`; what came before is in the file.
    """
    if path.suffix not in _KINDS:
        raise TargetUnusable("no such kind of file", file=path, known=" ".join(_KINDS))
    arrow = Arrow(names, option="--to")
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with ExitStack() as stack:
                reading = _write(read, wanted, arrow, _writer(path.suffix, part, arrow, stack))
        except WalDamaged:
            part.replace(path)
            raise
        part.replace(path)
    except OSError as error:
        raise TargetUnusable(
            "cannot write the file", file=path, reason=os.strerror(error.errno or 0)
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return reading


def _writer(suffix: str, part: Path, arrow: Arrow, stack: ExitStack) -> Any:  # noqa: ANN401  # of an optional package
    file = stack.enter_context(part.open("wb"))
    if suffix == ".parquet":
        parquet = optional("pyarrow.parquet", extra="arrow", option="--to")
        return stack.enter_context(parquet.ParquetWriter(file, arrow.nested_records, compression="zstd"))
    ipc = optional("pyarrow.ipc", extra="arrow", option="--to")
    return stack.enter_context(ipc.new_file(file, arrow.nested_records))


def _write(read: Read, wanted: Wanted, arrow: Arrow, writer: Any) -> Reading:  # noqa: ANN401  # of an optional package
    columns = WalColumns()
    major = 0

    def flush() -> None:
        if columns:
            writer.write_batch(arrow.nested_batch(columns, major))

    def render(inspector: WalInspector, wal: bytes, last: bool) -> None:
        nonlocal major
        columns.feed(inspector, wal, last=last)
        major = inspector.major or major
        if columns.is_full:
            flush()

    try:
        return read(wanted, render)
    finally:
        flush()
