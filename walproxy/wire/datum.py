"""Values of SQL types, in Postgres' text and binary forms."""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from walproxy.wire.errors import (
    CHARACTER_NOT_IN_REPERTOIRE,
    DATATYPE_MISMATCH,
    FEATURE_NOT_SUPPORTED,
    INVALID_BINARY_REPRESENTATION,
    INVALID_TEXT_REPRESENTATION,
    NUMERIC_VALUE_OUT_OF_RANGE,
    UNDEFINED_OBJECT,
    MalformedInput,
    SqlError,
)
from walproxy.wire.lsn import Lsn, parse_lsn

# A value as Python holds it: None, bool, int, float, str, bytes, Lsn, or a list of one of them.
Value = Any

TEXT_FORMAT: Final = 0
BINARY_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """One SQL type: its number, and how values become bytes and come back.

    Args:
        size: of the binary form; -1 if it varies.
        array_oid: the type of arrays of it; 0 if there is none here.
        element: what an array holds.
    """

    name: str
    oid: int
    size: int
    to_text: Callable[[Value], bytes]
    from_text: Callable[[str], Value]
    to_binary: Callable[[Value], bytes]
    from_binary: Callable[[bytes], Value]
    array_oid: int = 0
    element: "Type | None" = None

    def encode(self, value: Value, form: int) -> bytes | None:
        if value is None:
            return None
        return self.to_binary(value) if form == BINARY_FORMAT else self.to_text(value)

    def decode(self, data: bytes | None, form: int) -> Value:
        """Read what a client sent.

        Raises:
            SqlError: not of this type's form.
        """
        if data is None:
            return None
        if form == BINARY_FORMAT:
            try:
                return self.from_binary(data)
            except (struct.error, ValueError) as error:
                message = f"incorrect binary data format for type {self.name}"
                raise SqlError(INVALID_BINARY_REPRESENTATION, message) from error
        try:
            return self.parse(data.decode())
        except UnicodeDecodeError as error:
            raise SqlError(CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding UTF8") from error

    def parse(self, text: str) -> Value:
        """Read the text form. Raises SqlError."""
        try:
            return self.from_text(text)
        except OverflowError as error:
            message = f'value "{text}" is out of range for type {self.name}'
            raise SqlError(NUMERIC_VALUE_OUT_OF_RANGE, message) from error
        except (ValueError, MalformedInput) as error:
            message = f'invalid input syntax for type {self.name}: "{text}"'
            raise SqlError(INVALID_TEXT_REPRESENTATION, message) from error


def _int_type(name: str, oid: int, array_oid: int, *, form: str, low: int, high: int) -> Type:
    packing = struct.Struct(form)

    def from_text(text: str) -> int:
        if not text.strip().lstrip("+-").isdigit() or not text.isascii():
            raise ValueError(text)
        value = int(text)
        if not low <= value <= high:
            raise OverflowError(text)
        return value

    return Type(
        name,
        oid,
        packing.size,
        lambda value: str(value).encode(),
        from_text,
        packing.pack,
        lambda data: packing.unpack(data)[0],
        array_oid,
    )


def _bool_from_text(text: str) -> bool:
    word = text.strip().lower()
    if word in {"t", "true", "on", "yes", "y", "1"}:
        return True
    if word in {"f", "false", "off", "no", "n", "0"}:
        return False
    raise ValueError(text)


def _bytea_from_text(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    if "\\" in text:
        raise SqlError(FEATURE_NOT_SUPPORTED, "bytea is read in hex form only", hint=r"Write '\x0123'.")
    return text.encode()


def _float_from_text(text: str) -> float:
    return float(text.replace("_", "?"))


INT2: Final = _int_type("smallint", 21, 1005, form="!h", low=-(1 << 15), high=(1 << 15) - 1)
INT4: Final = _int_type("integer", 23, 1007, form="!i", low=-(1 << 31), high=(1 << 31) - 1)
INT8: Final = _int_type("bigint", 20, 1016, form="!q", low=-(1 << 63), high=(1 << 63) - 1)
OID: Final = _int_type("oid", 26, 1028, form="!I", low=0, high=(1 << 32) - 1)
_FLOAT8: Final = struct.Struct("!d")
FLOAT8: Final = Type(
    "double precision", 701, 8, lambda value: repr(value).encode(), _float_from_text,
    _FLOAT8.pack, lambda data: _FLOAT8.unpack(data)[0], 1022,
)  # fmt: skip
BOOL: Final = Type(
    "boolean", 16, 1, lambda value: b"t" if value else b"f", _bool_from_text,
    lambda value: b"\1" if value else b"\0", lambda data: data != b"\0", 1000,
)  # fmt: skip
TEXT: Final = Type("text", 25, -1, str.encode, str, str.encode, bytes.decode, 1009)
VARCHAR: Final = replace(TEXT, name="character varying", oid=1043, array_oid=1015)
# Bytes that are text to whoever asks, as they are.
RAW: Final = replace(TEXT, to_text=bytes, to_binary=bytes)
NAME: Final = replace(TEXT, name="name", oid=19, size=64, array_oid=1003)
UNKNOWN: Final = replace(TEXT, name="unknown", oid=705, size=-2, array_oid=0)
BYTEA: Final = Type(
    "bytea", 17, -1, lambda value: b"\\x" + value.hex().encode(), _bytea_from_text, bytes, bytes, 1001
)
_LSN: Final = struct.Struct("!Q")
PG_LSN: Final = Type(
    "pg_lsn", 3220, 8, lambda value: str(Lsn(value)).encode(), parse_lsn,
    _LSN.pack, lambda data: Lsn(_LSN.unpack(data)[0]), 3221,
)  # fmt: skip


def _array_to_text(element: Type, values: Sequence[Value]) -> bytes:
    parts = []
    for value in values:
        if value is None:
            parts.append(b"NULL")
            continue
        text = element.to_text(value)
        plain = text and text.upper() != b"NULL" and not any(char in text for char in b'{},"\\ \t\n\r\v\f')
        quoted = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        parts.append(text if plain else b'"' + quoted + b'"')
    return b"{" + b",".join(parts) + b"}"


_BLANK: Final = " \t\n\r\v\f"
_ARRAY_TEXT_ITEM: Final = re.compile(
    rf'[{_BLANK}]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^{{}},"\\]*?))[{_BLANK}]*(?P<end>,|\Z)',
    re.DOTALL,
)


def _array_from_text(element: Type, text: str) -> list[Value]:
    """Read ``{1,NULL,"a b"}``; one dimension only."""
    text = text.strip(_BLANK)
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        raise ValueError(text)
    inner = text[1:-1]
    values: list[Value] = []
    at = 0
    while inner.strip(_BLANK):
        match = _ARRAY_TEXT_ITEM.match(inner, at)
        if match is None or match["plain"] == "":
            raise ValueError(text)
        if match["plain"] is None:
            values.append(element.parse(re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL)))
        else:
            values.append(None if match["plain"].upper() == "NULL" else element.parse(match["plain"]))
        if not match["end"]:
            break
        at = match.end()
    return values


_ARRAY_HEAD: Final = struct.Struct("!iiI")  # Dimensions, has NULLs, type of the elements.
_ARRAY_DIMENSION: Final = struct.Struct("!ii")  # Length, lower bound.
_ARRAY_ITEM: Final = struct.Struct("!i")


def _array_to_binary(element: Type, values: Sequence[Value]) -> bytes:
    if not values:
        return _ARRAY_HEAD.pack(0, 0, element.oid)
    parts = [_ARRAY_HEAD.pack(1, any(value is None for value in values), element.oid)]
    parts.append(_ARRAY_DIMENSION.pack(len(values), 1))
    for value in values:
        data = element.encode(value, BINARY_FORMAT)
        parts.append(_ARRAY_ITEM.pack(-1) if data is None else _ARRAY_ITEM.pack(len(data)) + data)
    return b"".join(parts)


def _array_from_binary(element: Type, data: bytes) -> list[Value]:
    dimensions, _, oid = _ARRAY_HEAD.unpack_from(data)
    at = _ARRAY_HEAD.size
    sent = BY_OID.get(oid, element)
    if dimensions == 0 and len(data) == at:
        return []
    if dimensions != 1:
        raise ValueError(dimensions)
    count, _ = _ARRAY_DIMENSION.unpack_from(data, at)
    at += _ARRAY_DIMENSION.size
    values: list[Value] = []
    # Each item takes at least the four bytes of its length, so a false count ends with struct.error.
    for _ in range(count):
        (length,) = _ARRAY_ITEM.unpack_from(data, at)
        at += _ARRAY_ITEM.size
        if length == -1:
            values.append(None)
            continue
        if length < 0 or at + length > len(data):
            raise ValueError(length)
        values.append(coerce(sent.from_binary(data[at : at + length]), sent, element))
        at += length
    if at != len(data):
        raise ValueError(at)
    return values


def array_of(element: Type) -> Type:
    return Type(
        f"{element.name}[]",
        element.array_oid,
        -1,
        lambda values: _array_to_text(element, values),
        lambda text: _array_from_text(element, text),
        lambda values: _array_to_binary(element, values),
        lambda data: _array_from_binary(element, data),
        element=element,
    )


_SCALARS: Final = (BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID, FLOAT8, VARCHAR, PG_LSN)
_ARRAYS: Final = {scalar.oid: array_of(scalar) for scalar in _SCALARS}
TEXT_ARRAY: Final = _ARRAYS[TEXT.oid]
INT8_ARRAY: Final = _ARRAYS[INT8.oid]
PG_LSN_ARRAY: Final = _ARRAYS[PG_LSN.oid]
BY_OID: Final = {kind.oid: kind for kind in (*_SCALARS, *_ARRAYS.values(), UNKNOWN)}
_ALIASES: Final = {
    "int8": INT8, "int": INT4, "int4": INT4, "int2": INT2, "float8": FLOAT8, "bool": BOOL, "varchar": VARCHAR,
}  # fmt: skip
_BY_NAME: Final = {kind.name: kind for kind in _SCALARS} | _ALIASES
_INTEGERS: Final = {INT2.oid: INT2, INT4.oid: INT4, INT8.oid: INT8, OID.oid: OID}
_STRINGS: Final = {TEXT.oid, VARCHAR.oid, NAME.oid, UNKNOWN.oid}


def type_named(name: str, *, is_array: bool = False) -> Type:
    """The type of that name, aliases included. Raises SqlError."""
    kind = _BY_NAME.get(name.lower())
    if kind is None:
        raise SqlError(UNDEFINED_OBJECT, f'type "{name}" does not exist here')
    return _ARRAYS[kind.oid] if is_array else kind


def type_numbered(oid: int) -> Type:
    """The type of that oid. Raises SqlError."""
    kind = BY_OID.get(oid)
    if kind is None:
        raise SqlError(UNDEFINED_OBJECT, f"type with OID {oid} does not exist here")
    return kind


def coerce(value: Value, have: Type, want: Type) -> Value:
    """Make a value of one type one of another, where nothing can be lost or meant otherwise.

    Strings become whatever their text says, as unknown literals do in Postgres; integers become wider or
    narrower ones that hold them, and floats.

    Raises:
        SqlError: it cannot be done.
    """
    if value is None or have.oid == want.oid or {have.oid, want.oid} <= _STRINGS:
        return value
    if have.oid in _STRINGS:
        return want.parse(value)
    if have.oid in _INTEGERS and want.oid in _INTEGERS:
        return want.parse(str(value))
    if have.oid in _INTEGERS and want.oid == FLOAT8.oid:
        return float(value)
    if have.element is not None and want.element is not None:
        return [coerce(item, have.element, want.element) for item in value]
    raise SqlError(DATATYPE_MISMATCH, f"{want.name} is wanted, not {have.name}")
