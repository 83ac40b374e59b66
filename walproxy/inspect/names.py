"""Names of relations, by what WAL calls them: tablespace, database, relfilenode."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from walproxy.inspect.errors import TargetUnusable

FORMAT: Final = 1
# Tablespace, database (0 for a shared relation), relfilenode.
Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Named:
    """A relation.

    Args:
        database: empty for a shared relation.
        kind: as ``pg_class.relkind``.
        owner: ``schema.table`` of a TOAST table or its index; else empty.
    """

    key: Key
    database: str
    schema: str
    name: str
    kind: str
    owner: str = ""

    @property
    def label(self) -> str:
        """What output calls it: ``database.schema.relation``, or whose TOAST it is."""
        place = f"{self.database}." if self.database else ""
        if self.owner:
            return f"{place}{self.owner} ({'toast index' if self.kind == 'i' else 'toast'})"
        return f"{place}{self.schema}.{self.name}"

    def is_called(self, text: str) -> bool:
        """Whether somebody who writes ``text`` may mean it: with its database, the schema left out or not."""
        place = f"{self.database}." if self.database else ""
        return text in {self.label, f"{place}{self.schema}.{self.name}", f"{place}{self.name}"}


@dataclass(slots=True)
class Names:
    """The relations of a server at one moment.

    Args:
        system_id: of the cluster; 0 if the server would not say.
        unread: databases whose relations are not in here, and why.
    """

    system_id: int = 0
    relations: dict[Key, Named] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, relations: Iterable[Named], *, system_id: int, unread: Mapping[str, str]) -> Self:
        return cls(system_id, {named.key: named for named in relations}, dict(unread))

    def label(self, key: Key) -> str | None:
        """What to call a relation; None: it is not known."""
        named = self.relations.get(key)
        return None if named is None else named.label

    def find(self, text: str) -> Key:
        """The relation that somebody calls ``text``.

        Raises:
            TargetUnusable: there is none, or more than one.
        """
        found = [named for named in self.relations.values() if named.is_called(text)]
        if not found:
            raise TargetUnusable("no relation of that name is known", relation=text)
        if len(found) > 1:
            which = ", ".join(sorted(f"{named.database}.{named.schema}.{named.name}" for named in found))
            raise TargetUnusable("more than one relation has that name", relation=text, found=which)
        return found[0].key

    def with_newer(self, newer: "Names") -> "Names":
        """Both; what the newer ones know, they name.

        Raises:
            TargetUnusable: they are of two clusters.
        """
        if self.system_id and newer.system_id and self.system_id != newer.system_id:
            raise TargetUnusable("the names are of two clusters", one=self.system_id, other=newer.system_id)
        return Names(
            newer.system_id or self.system_id,
            self.relations | newer.relations,
            self.unread | newer.unread,
        )

    def check(self, system_id: int) -> None:
        """Raises TargetUnusable if the WAL is of another cluster."""
        if self.system_id and system_id and self.system_id != system_id:
            raise TargetUnusable("the names are of another cluster", names=self.system_id, wal=system_id)

    def dump(self) -> str:
        """As text to be saved: JSON, one relation a line."""
        rows = (
            json.dumps([*named.key, named.database, named.schema, named.name, named.kind, named.owner])
            for named in sorted(self.relations.values(), key=lambda named: named.key)
        )
        head = json.dumps({"walproxy_names": FORMAT, "system_id": self.system_id, "unread": self.unread})
        return f'{head[:-1]}, "relations": [\n' + ",\n".join(rows) + "\n]}\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `dump` made.

        Raises:
            TargetUnusable: it cannot be read, or is something else.
        """
        try:
            saved = json.loads(path.read_text("utf-8"))
            if saved["walproxy_names"] != FORMAT:
                raise TargetUnusable("names in a form of another version", file=path)
            relations = _rows(saved["relations"])
            return cls.of(relations, system_id=int(saved["system_id"]), unread=dict(saved["unread"]))
        except OSError as error:
            raise TargetUnusable("cannot read the names", file=path, reason=error.strerror) from error
        except (ValueError, TypeError, KeyError) as error:
            raise TargetUnusable("no file that `walproxy names` saved", file=path) from error


def _rows(rows: Sequence[Sequence[Any]]) -> Iterator[Named]:
    for spc, db, rel, *texts in rows:
        database, schema, name, kind, owner = map(str, texts)
        yield Named((int(spc), int(db), int(rel)), database, schema, name, kind, owner)
