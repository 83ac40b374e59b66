"""Records and their block references as Arrow columns. What each column means is in ``docs/wal-columns.md``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from walcore._native import WalColumns, record_kinds, rmgr_names
from walproxy.inspect.names import Key, Names
from walproxy.inspect.optional import optional

if TYPE_CHECKING:
    import pyarrow as pa

_FORKS: Final = ("main", "fsm", "vm", "init")
_METHODS: Final = ("none", "pglz", "lz4", "zstd")

# Name and type; ? where there may be none.
RECORDS: Final = (
    ("lsn", "uint64"), ("end_lsn", "uint64"), ("prev_lsn", "uint64"), ("rmgr", "string"), ("record", "string"),
    ("xid", "uint32?"), ("toplevel_xid", "uint32?"), ("origin", "uint16?"), ("length", "uint32"),
    ("total_length", "uint32"), ("image_length", "uint32"), ("time", "timestamp?"), ("description", "string"),
)  # fmt: skip
BLOCKS: Final = (
    ("block_id", "uint8"), ("tablespace_oid", "uint32"), ("database_oid", "uint32"), ("relfilenode", "uint32"),
    ("relation", "string"), ("name", "string?"), ("fork", "string"), ("block", "uint32"), ("will_init", "bool"),
    ("data_length", "uint16"), ("image_length", "uint16?"), ("image_applies", "bool?"), ("hole_offset", "uint16?"),
    ("hole_length", "uint16?"), ("compression", "string?"),
)  # fmt: skip
# Of the record that a block reference stands in.
OF_RECORD: Final = (("lsn", "uint64"), ("xid", "uint32?"), ("rmgr", "string"), ("record", "string"))


class Arrow:
    """Makes Arrow batches of what a `WalColumns` gathers.

    Raises:
        TargetUnusable: pyarrow is missing.
    """

    def __init__(self, names: Names | None, *, option: str) -> None:
        self._pa = optional("pyarrow", extra="arrow", option=option)
        self._pc = optional("pyarrow.compute", extra="arrow", option=option)
        self._names = names
        self._rmgrs = self._strings([*rmgr_names(), *(f"custom{number:03}" for number in range(22, 256))])
        self._kinds: dict[int, pa.Array[Any]] = {}
        self._block_fields = [self._field(*column) for column in BLOCKS]
        fields = [self._field(*column) for column in RECORDS]
        blocks = self._pa.list_(self._pa.field("item", self._pa.struct(self._block_fields), nullable=False))
        self.flat_records: pa.Schema = self._pa.schema(fields)
        self.nested_records: pa.Schema = self._pa.schema(
            [*fields, self._pa.field("blocks", blocks, nullable=False)]
        )
        self.blocks: pa.Schema = self._pa.schema(
            [*(self._field(*column) for column in OF_RECORD), *self._block_fields]
        )

    def records_batch(self, columns: WalColumns, major: int) -> "pa.RecordBatch":
        """Records without their blocks."""
        taken = columns.take()
        arrays = self._record_arrays(taken, major)
        return self._pa.RecordBatch.from_arrays(arrays, schema=self.flat_records)

    def nested_batch(self, columns: WalColumns, major: int) -> "pa.RecordBatch":
        """Records, each with the list of its blocks."""
        taken = columns.take()
        arrays = [*self._record_arrays(taken, major), self._lists(taken)]
        return self._pa.RecordBatch.from_arrays(arrays, schema=self.nested_records)

    def blocks_batch(self, columns: WalColumns, major: int) -> "pa.RecordBatch":
        """Block references, each with what it needs to be joined with its record."""
        taken = columns.take()
        rows = self._pc.list_parent_indices(self._lists(taken))
        of_record = dict(zip((name for name, _ in RECORDS), self._record_arrays(taken, major), strict=True))
        arrays = [of_record[name].take(rows) for name, _ in OF_RECORD]
        return self._pa.RecordBatch.from_arrays([*arrays, *self._block_arrays(taken)], schema=self.blocks)

    def _type(self, name: str) -> "pa.DataType":
        if name == "timestamp":
            return self._pa.timestamp("us", tz="UTC")
        return self._pa.type_for_alias(name)

    def _field(self, name: str, kind: str) -> "pa.Field[Any]":
        return self._pa.field(name, self._type(kind.rstrip("?")), nullable=kind.endswith("?"))

    def _strings(self, texts: Sequence[str | None]) -> "pa.Array[Any]":
        return self._pa.array(texts, self._pa.string())

    def _of(self, kind: str, length: int, data: bytes, valid: bytes | None = None) -> "pa.Array[Any]":
        buffers = [None if valid is None else self._pa.py_buffer(valid), self._pa.py_buffer(data)]
        return self._pa.Array.from_buffers(self._type(kind), length, buffers)

    def _record_arrays(self, taken: Mapping[str, Any], major: int) -> "list[pa.Array[Any]]":
        length, columns = taken["len"], taken["records"]
        if major not in self._kinds:
            self._kinds[major] = self._strings(record_kinds(major))
        arrays = {
            "rmgr": self._rmgrs.take(self._of("uint8", length, columns["rmgr"])),
            "record": self._kinds[major].take(self._of("uint16", length, columns["kind"])),
            "description": self._pa.Array.from_buffers(
                self._pa.string(),
                length,
                [
                    None,
                    self._pa.py_buffer(bytes(4) + columns["description_ends"]),
                    self._pa.py_buffer(columns["description"]),
                ],
            ),
        }
        for name, kind in RECORDS:
            if name not in arrays:
                valid = columns[f"{name}_valid"] if kind.endswith("?") else None
                arrays[name] = self._of(kind.rstrip("?"), length, columns[name], valid)
        return [arrays[name] for name, _ in RECORDS]

    def _lists(self, taken: Mapping[str, Any]) -> "pa.Array[Any]":
        ends = bytes(4) + taken["records"]["block_ends"]
        offsets = self._of("int32", taken["len"] + 1, ends)
        structs = self._pa.StructArray.from_arrays(self._block_arrays(taken), fields=self._block_fields)
        return self._pa.ListArray.from_arrays(offsets, structs, type=self.nested_records.field("blocks").type)

    def _block_arrays(self, taken: Mapping[str, Any]) -> "list[pa.Array[Any]]":
        length, columns, keys = taken["blocks_len"], taken["blocks"], taken["relations"]
        relation = self._of("uint32", length, columns["relation"])
        has_image = columns["has_image"]
        forks, methods = self._strings(_FORKS), self._strings(_METHODS)
        arrays = {
            "relation": self._strings([f"{spc}/{db}/{rel}" for spc, db, rel in keys]).take(relation),
            "name": self._strings([self._label(key) for key in keys]).take(relation),
            "fork": forks.take(self._of("uint8", length, columns["fork"])),
            "compression": methods.take(self._of("uint8", length, columns["compression"], has_image)),
            "image_length": self._of("uint16", length, columns["stored_length"], has_image),
        }
        for name, kind in BLOCKS:
            if name not in arrays:
                valid = has_image if kind.endswith("?") else None
                arrays[name] = self._of(kind.rstrip("?"), length, columns[name], valid)
        return [arrays[name] for name, _ in BLOCKS]

    def _label(self, key: Key) -> str | None:
        return None if self._names is None else self._names.label(key)
