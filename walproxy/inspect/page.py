"""`walproxy inspect --page`: the history of one page."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from walcore._native import WalInspector, page_history
from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.names import Key, Names
from walproxy.inspect.naming import naming
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.wanted import Wanted

_NUMBERS: Final = re.compile(r"(\d+)/(\d+)/(\d+)")
_BLOCK_MAX: Final = 0xFFFF_FFFE
_EFFECTS: Final = {
    "image": "replaced by its image",
    "init": "built anew",
    "change": "changed",
    "implied": "changed, not named",
    "reference": "left as it is",
    "create": "fork created",
    "truncate": "cut off",
    "drop": "relation dropped",
    "copy": "database copied here",
}


def parse_page(text: str, names: Names | None) -> tuple[Key, int]:
    """A relation and a block of it: ``database.schema.relation/block``, or numbers.

    Raises:
        TargetUnusable: it is neither, or no such relation is known.
    """
    relation, slash, block = text.rpartition("/")
    if not slash or not block.isdecimal() or int(block) > _BLOCK_MAX:
        raise TargetUnusable("a page is relation/block", page=text)
    return parse_relation(relation, names), int(block)


def parse_relation(text: str, names: Names | None) -> Key:
    """A relation, by numbers or by its name.

    Raises:
        TargetUnusable: it is neither, or no such relation is known.
    """
    if (numbers := _NUMBERS.fullmatch(text)) is not None:
        spc, db, rel = map(int, numbers.groups())
        if max(spc, db, rel) < 1 << 32:
            return spc, db, rel
    if names is None:
        raise TargetUnusable(
            "a relation is tablespace/database/relfilenode, or a name with --names", relation=text
        )
    return names.find(text)


def show_page(
    read: Read,
    wanted: Wanted,
    page: tuple[Key, int],
    names: Names | None,
    *,
    console: Console,
    as_json: bool,
) -> Reading:
    """Print each record that touches the page, by name or not; at most ``wanted.limit`` of them."""
    (spc, db, rel), block = page
    key = (spc, db, rel, wanted.fork or 0, block)
    named = naming(names)
    left = wanted.limit
    header = True

    def render(inspector: WalInspector, wal: bytes, last: bool) -> None:
        nonlocal left, header
        found = page_history(inspector, wal, key, last=last)[:left]
        left = None if left is None else left - len(found)
        rows = [(effect, json.loads(named(line))) for effect, line in found]
        if as_json:
            for effect, record in rows:
                sys.stdout.write(json.dumps({"effect": effect} | record) + "\n")
        elif rows:
            _print(console, rows, key, header=header)
            header = False

    return read(replace(wanted, fork=None, limit=None), render)


def _print(
    console: Console,
    rows: list[tuple[str, Mapping[str, Any]]],
    key: tuple[int, int, int, int, int],
    *,
    header: bool,
) -> None:
    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in (
        ("lsn", 17),
        ("xid", 10),
        ("rmgr", 11),
        ("record", 20),
        ("the page is", 21),
        ("image", 18),
    ):
        right = name in {"lsn", "xid"}
        table.add_column(name, min_width=width, justify="right" if right else "left", no_wrap=True)
    table.add_column("description", overflow="fold")
    for effect, record in rows:
        cells = (record["lsn"], str(record["xid"] or ""), record["rmgr"], record["record"])
        table.add_row(*cells, _EFFECTS[effect], _image(record, key), record["description"])
    console.print(table)


def _image(record: Mapping[str, Any], key: tuple[int, int, int, int, int]) -> str:
    """The image of the page in the record, if there is one."""
    spc, db, rel, fork, block = key
    fork_name = ("main", "fsm", "vm", "init")[fork]
    for reference in record["blocks"]:
        same = (reference["relation"], reference["fork"], reference["block"]) == (
            f"{spc}/{db}/{rel}",
            fork_name,
            block,
        )
        if same and (image := reference.get("image")):
            packed = "" if image["compression"] == "none" else f" {image['compression']}"
            return f"{image['length']}{packed}{'' if image['apply'] else ' (check)'}"
    return ""
