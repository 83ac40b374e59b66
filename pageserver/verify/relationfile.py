"""Names of relation files, and what a folder of them holds."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pageserver.verify.catalog import Relation, RelationKey

GLOBAL_TABLESPACE, DEFAULT_TABLESPACE = 1664, 1663
SEGMENT_BLOCKS = 131072

_NAME = re.compile(r"(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Folder:
    """The relations of one database in one tablespace; ``path`` is relative to the data directory."""

    spc: int
    db: int
    path: str


def folder_path(spc: int, db: int, *, tablespace_folder: str) -> str:
    """Where a server keeps the relations of a database in a tablespace, relative to its data directory.

    ``tablespace_folder`` is the name of the folder of its major within a tablespace.
    """
    if spc == GLOBAL_TABLESPACE:
        return "global"
    if spc == DEFAULT_TABLESPACE:
        return f"base/{db}"
    return f"pg_tblspc/{spc}/{tablespace_folder}/{db}"


def file_name(rel: int, fork: str, block: int) -> str:
    """Name of the file that holds a block."""
    stem = str(rel) if fork == "main" else f"{rel}_{fork}"
    segment = block // SEGMENT_BLOCKS
    return f"{stem}.{segment}" if segment else stem


def relations_in(folder: Folder, names: Iterable[str]) -> list[Relation]:
    """What of a folder can be redone.

    Every relation but its free space map, and of unlogged ones the init fork alone. Temporary relations
    have names of another form (``t3_16384``).
    """
    forks: dict[int, set[str]] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is not None and match[2] != "fsm":
            forks.setdefault(int(match[1]), set()).add(match[2] or "main")
    return [
        Relation(
            RelationKey(folder.spc, folder.db, rel),
            f"{folder.path}/{rel}",
            None,
            ("init",) if "init" in found else tuple(sorted(found)),
        )
        for rel, found in sorted(forks.items())
    ]
