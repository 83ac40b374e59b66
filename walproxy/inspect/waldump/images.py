"""Full-page images as files."""

from collections.abc import Iterable
from pathlib import Path

from walproxy.inspect.waldump.ended import Fatal

Image = tuple[int, tuple[int, int, int], str, int, bytes]


def prepare(folder: str) -> None:
    """Make the folder, or find it empty. Raises Fatal."""
    path = Path(folder)
    try:
        if not path.exists():
            path.mkdir(parents=True, mode=0o700)
        elif any(path.iterdir()):
            raise Fatal(f'directory "{folder}" exists but is not empty')
    except OSError as error:
        what = "access" if path.exists() else "create"
        raise Fatal(f'could not {what} directory "{folder}": {error.strerror}') from error


def save(folder: str, tli: int, images: Iterable[Image]) -> None:
    """Write each page to a file of its own: start of the record, relation, fork, block, page. Raises Fatal.

    Source:
        ``XLogRecordSaveFPWs`` in ``src/bin/pg_waldump/pg_waldump.c``.
    """
    for lsn, (spc, db, rel), fork, block, page in images:
        name = f"{tli:08X}-{lsn >> 32:08X}-{lsn & 0xFFFF_FFFF:08X}.{spc}.{db}.{rel}.{block}_{fork}"
        path = f"{folder}/{name}"
        try:
            Path(path).write_bytes(page)
        except OSError as error:
            raise Fatal(f'could not write file "{path}": {error.strerror}') from error
