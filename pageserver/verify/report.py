"""What a verification found."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pageserver.errors import ExitCode
from pageserver.verify.excuse import Excuse
from pageserver.verify.explain import Field
from walproxy.wire.lsn import Lsn

DIFFERENCES_KEPT_MAX = 1000


class What(StrEnum):
    """In what way something differs."""

    BYTES = "bytes differ"
    LSN = "pd_lsn differs"
    VISIBILITY = "visibility bits differ"
    ABSENT = "no such block"
    UNREADABLE = "cannot be rebuilt"
    LONGER = "longer than the live fork"
    MISSING = "no such fork"
    EXTRA = "the live server has no such fork"
    STATUS = "transaction status differs"


class Section(StrEnum):
    """What is counted apart."""

    RELATIONS = "relations"
    REFUSED = "databases that refuse connections"
    CLOG = "transaction status"


@dataclass(frozen=True, slots=True)
class Difference:
    """One page or fork that is not what the live server has."""

    what: What
    database: str
    relation: str
    key: str
    fork: str
    block: int | None
    lsn: Lsn
    offset: int | None = None
    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        where = f"{self.relation} ({self.key} {self.fork}"
        where += "" if self.block is None else f" block {self.block}"
        head = f"{self.database}: {where}) at {self.lsn}: {self.what.value}"
        head += "" if self.offset is None else f", first at byte {self.offset}"
        return "\n    ".join([head, *(str(entry) for entry in self.fields)])

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.what.value,
            "database": self.database,
            "relation": self.relation,
            "key": self.key,
            "fork": self.fork,
            "block": self.block,
            "lsn": str(self.lsn),
            "first_different_byte": self.offset,
            "fields": [{"name": one.name, "live": one.live, "ours": one.ours} for one in self.fields],
        }


@dataclass(slots=True)
class Counts:
    """Pages of one section. ``identical + different == pages``."""

    pages: int = 0
    identical: int = 0
    different: int = 0
    forks: int = 0
    excuses: Counter[Excuse] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        return {
            "pages": self.pages,
            "identical": self.identical,
            "different": self.different,
            "forks": self.forks,
            "masked": {excuse.name.lower(): number for excuse, number in sorted_excuses(self.excuses)},
        }


@dataclass(slots=True)
class Report:
    """Collects what workers find."""

    counts: dict[Section, Counts] = field(default_factory=lambda: {section: Counts() for section in Section})
    differences: list[Difference] = field(default_factory=list)
    differences_found: int = 0
    vanished: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    def identical(self, section: Section, pages: int, excuses: Iterable[Excuse] = ()) -> None:
        """Count pages that are equal; each name in `excuses` is one page's."""
        counts = self.counts[section]
        counts.pages += pages
        counts.identical += pages
        counts.excuses.update(excuses)

    def different(self, section: Section, difference: Difference) -> None:
        """Count and keep a difference of a page, or of a fork as a whole."""
        if difference.block is not None:
            self.counts[section].pages += 1
            self.counts[section].different += 1
        self.differences_found += 1
        if len(self.differences) < DIFFERENCES_KEPT_MAX:
            self.differences.append(difference)

    def note(self, text: str) -> None:
        """Say something about how it was done."""
        self.notes.append(text)

    @property
    def pages(self) -> int:
        return sum(counts.pages for counts in self.counts.values())

    @property
    def exit_code(self) -> ExitCode:
        if self.differences_found:
            return ExitCode.DAMAGED
        return ExitCode.RUNTIME if self.not_checked else ExitCode.STOPPED

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.exit_code is ExitCode.STOPPED,
            "pages": self.pages,
            "identical": sum(counts.identical for counts in self.counts.values()),
            "different": sum(counts.different for counts in self.counts.values()),
            "sections": {
                section.name.lower(): counts.as_dict()
                for section, counts in self.counts.items()
                if counts.pages
            },
            "exceptions": {
                excuse.name.lower(): excuse.value for excuse, _number in sorted_excuses(self.excuses)
            },
            "differences_found": self.differences_found,
            "differences": [difference.as_dict() for difference in self.differences],
            "databases": self.databases,
            "vanished": self.vanished,
            "not_checked": self.not_checked,
            "notes": self.notes,
            "elapsed_s": round(self.elapsed_s, 3),
        }

    @property
    def excuses(self) -> Counter[Excuse]:
        """Pages by exception, of all sections."""
        return sum((counts.excuses for counts in self.counts.values()), Counter())


def sorted_excuses(excuses: Counter[Excuse]) -> list[tuple[Excuse, int]]:
    """In the order they are listed in."""
    return [(excuse, excuses[excuse]) for excuse in Excuse if excuses[excuse]]
