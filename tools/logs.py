"""The logs of a group's nodes on disk, compared byte for byte."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tools.stack import Program
from walproxy.wire.errors import MalformedInput
from walproxy.wire.lsn import Lsn, parse_segment_name


def segments(node: Program, segment_size: int) -> dict[int, Path]:
    """The file of each segment by where it begins; of one that two timelines share, that of the later one.

    The later one repeats what the earlier one has up to the switch.
    """
    found: dict[int, tuple[int, Path]] = {}
    for file in (node.data_dir / "wal").iterdir():
        try:
            tli, start = parse_segment_name(file.name.removesuffix(".partial"), segment_size)
        except MalformedInput:
            continue
        found[start] = max(found.get(start, (0, file)), (tli, file))
    return {start: file for start, (_, file) in sorted(found.items())}


def log_differences(nodes: Sequence[Program], end_lsn: Lsn, segment_size: int) -> Iterator[str]:
    """Where the logs differ below ``end_lsn``, which all of them have reached. Gives nothing if they are equal.

    They are compared from where the last of them begins: each removes old segments in its own time.
    """
    logs = {node.name: segments(node, segment_size) for node in nodes}
    for name, files in logs.items():
        if any(b - a != segment_size for a, b in pairwise(files)) or not files:
            yield f"{name}: a segment is missing: {[file.name for file in files.values()]}"
            return
    begin = max(min(files) for files in logs.values())
    if begin >= end_lsn:
        yield f"nothing to compare from {Lsn(begin)} to {end_lsn}"
    for start in range(begin, end_lsn, segment_size):
        size = min(segment_size, end_lsn - start)
        digests = {name: _digest(files.get(start), size) for name, files in logs.items()}
        if len(set(digests.values())) != 1:
            yield f"from {Lsn(start)} to {Lsn(start + size)}: {digests}"


def _digest(file: Path | None, size: int) -> str:
    if file is None:
        return "missing"
    with file.open("rb") as opened:
        wal = opened.read(size)
    return hashlib.sha256(wal).hexdigest() if len(wal) == size else f"only {len(wal)} bytes"
