"""`walproxy inspect --usage`: what fills the WAL, and what settings would spare."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from walcore._native import WalInspector, WalUsage
from walproxy.inspect.names import Key, Names
from walproxy.inspect.reading import Read, Reading
from walproxy.inspect.wanted import Wanted

_SHOWN_RELATIONS: Final = 20
_Of = TypeVar("_Of")


@dataclass(frozen=True, slots=True)
class Part:
    """What one relation or resource manager takes."""

    records: int = 0
    record_bytes: int = 0
    images: int = 0
    image_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.record_bytes + self.image_bytes

    def __add__(self, other: "Part") -> "Part":
        return Part(
            self.records + other.records,
            self.record_bytes + other.record_bytes,
            self.images + other.images,
            self.image_bytes + other.image_bytes,
        )


@dataclass(frozen=True, slots=True)
class Images:
    """Images that are there for one reason; ``header_bytes`` describe them in their records."""

    reason: str
    images: int
    image_bytes: int
    header_bytes: int


@dataclass(frozen=True, slots=True)
class Saving:
    """What another setting would spare.

    Args:
        basis: how that is known.
    """

    setting: str
    bytes: int
    basis: str


@dataclass(slots=True)
class Report:
    """All of it. ``relations``: None for records that refer to no block."""

    relations: dict[Key | None, Part] = field(default_factory=dict)
    rmgrs: dict[str, Part] = field(default_factory=dict)
    images: list[Images] = field(default_factory=list)
    savings: list[Saving] = field(default_factory=list)

    @property
    def total(self) -> Part:
        return sum(self.rmgrs.values(), Part())


def report_of(usage: WalUsage) -> Report:
    """Add up by relation and by resource manager, and weigh the settings."""
    report = Report()
    for key, rmgr, *numbers in usage.volumes():
        part = Part(*numbers)
        report.relations[key] = report.relations.get(key, Part()) + part
        report.rmgrs[rmgr] = report.rmgrs.get(rmgr, Part()) + part
    report.images = [Images(*row) for row in usage.images() if row[1]]
    report.savings = list(_savings(usage, report))
    return report


def _savings(usage: WalUsage, report: Report) -> Iterable[Saving]:
    by_reason = {images.reason: images for images in report.images}
    if (spared := by_reason.get("full_page_writes")) is not None:
        instead = usage.data_instead()
        yield Saving(
            "full_page_writes = off",
            spared.image_bytes + spared.header_bytes - instead,
            f"estimate: {spared.images} images go, about {instead} bytes of data come instead",
        )
    if (checking := by_reason.get("wal_consistency_checking")) is not None:
        yield Saving(
            "wal_consistency_checking = ''",
            checking.image_bytes + checking.header_bytes,
            "counted: its images go",
        )
    count, stored, methods = usage.packed()
    all_images, all_bytes = report.total.images, report.total.image_bytes
    if count and stored:
        whole = count == all_images
        basis = "measured: all images compressed" if whole else f"measured on {count} of {all_images} images"
        scale = 1 if whole else all_bytes / stored
        for method, packed in methods:
            yield Saving(f"wal_compression = {method}", round((stored - packed) * scale), basis)


def show_usage(
    read: Read, wanted: Wanted, names: Names | None, *, console: Console, as_json: bool
) -> Reading:
    """Print what fills the WAL.

    Raises:
        WalDamaged: as `Read`; nothing is printed then.
    """
    usage = WalUsage(pack=True)

    def render(inspector: WalInspector, wal: bytes, last: bool) -> None:
        usage.feed(inspector, wal, last=last)

    reading = read(wanted, render)
    report = report_of(usage)
    if as_json:
        _write_json(report, names)
    else:
        _print(console, reading, report, names)
    return reading


def _write_json(report: Report, names: Names | None) -> None:
    for key, part in _most(report.relations):
        row: dict[str, object] = {
            "by": "relation",
            "relation": None if key is None else "/".join(map(str, key)),
        }
        if key and names is not None and (label := names.label(key)):
            row["name"] = label
        typer.echo(json.dumps(row | asdict(part)))
    for rmgr, part in _most(report.rmgrs):
        typer.echo(json.dumps({"by": "rmgr", "rmgr": rmgr} | asdict(part)))
    for images in report.images:
        typer.echo(json.dumps({"by": "images"} | asdict(images)))
    for saving in report.savings:
        typer.echo(json.dumps({"by": "setting"} | asdict(saving)))


def _most(parts: dict[_Of, Part]) -> list[tuple[_Of, Part]]:
    return sorted(parts.items(), key=lambda item: -item[1].bytes)


def _print(console: Console, reading: Reading, report: Report, names: Names | None) -> None:
    title = f"WAL between {reading.first_lsn} and {reading.end_lsn}, PostgreSQL {reading.major}"
    relations = [
        ("(no relation)" if key is None else (names and names.label(key)) or "/".join(map(str, key)), part)
        for key, part in _most(report.relations)
    ]
    if len(relations) > _SHOWN_RELATIONS:
        rest = relations[_SHOWN_RELATIONS:]
        others = (f"({len(rest)} others)", sum((part for _, part in rest), Part()))
        relations = [*relations[:_SHOWN_RELATIONS], others]
    _print_parts(console, f"{title}, by relation", relations, report.total)
    _print_parts(console, "By resource manager", _most(report.rmgrs), report.total)
    total = report.total.bytes
    if report.images:
        table = Table(title="Full-page images, by what they are there for", title_justify="left")
        table.add_column("reason")
        for name in ("images", "bytes", "% of all"):
            table.add_column(name, justify="right")
        for images in report.images:
            share = _share(images.image_bytes, total)
            table.add_row(images.reason, str(images.images), str(images.image_bytes), share)
        console.print(table)
    if report.savings:
        table = Table(title="What another setting would spare", title_justify="left")
        table.add_column("setting")
        table.add_column("bytes", justify="right")
        table.add_column("% of all", justify="right")
        table.add_column("how that is known", overflow="fold")
        for saving in report.savings:
            table.add_row(saving.setting, str(saving.bytes), _share(saving.bytes, total), saving.basis)
        console.print(table)


def _print_parts(console: Console, title: str, parts: Sequence[tuple[str, Part]], total: Part) -> None:
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("", footer="total", overflow="fold")
    shown = (total.records, total.record_bytes, total.images, total.image_bytes, total.bytes)
    for name, footer in zip(
        ("records", "record bytes", "images", "image bytes", "all bytes"), shown, strict=True
    ):
        table.add_column(name, justify="right", footer=str(footer))
    table.add_column("%", justify="right")
    for label, part in parts:
        cells = (part.records, part.record_bytes, part.images, part.image_bytes, part.bytes)
        table.add_row(label, *map(str, cells), _share(part.bytes, total.bytes))
    console.print(table)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0.00"
