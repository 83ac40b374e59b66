"""Writer and Reader: the few shapes that messages and the control file are made of, big-endian."""

import struct
from typing import Self

from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.terms import TermEntry, TermHistory
from walproxy.wire.lsn import Lsn

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_U64 = struct.Struct("!Q")
_ENTRY = struct.Struct("!QIQ")


class Writer:
    """Appends values; each call gives the writer back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> Self:
        self._parts.append(value.to_bytes(1))
        return self

    def u16(self, value: int) -> Self:
        self._parts.append(_U16.pack(value))
        return self

    def u32(self, value: int) -> Self:
        self._parts.append(_U32.pack(value))
        return self

    def u64(self, value: int) -> Self:
        self._parts.append(_U64.pack(value))
        return self

    def blob(self, value: bytes) -> Self:
        self._parts += (_U32.pack(len(value)), value)
        return self

    def text(self, value: str) -> Self:
        return self.blob(value.encode())

    def names(self, value: tuple[str, ...]) -> Self:
        self.u16(len(value))
        for name in value:
            self.text(name)
        return self

    def membership(self, value: Membership) -> Self:
        return self.u32(value.generation).names(value.members).names(value.new_members)

    def terms(self, value: TermHistory) -> Self:
        self.u32(len(value.entries))
        self._parts += (_ENTRY.pack(entry.term, entry.tli, entry.start_lsn) for entry in value.entries)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Takes values off the front; every method raises MessageMalformed when the bytes do not hold them."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def expect(self, is_right: bool, what: str) -> None:
        if not is_right:
            raise MessageMalformed(what, at=self._at, length=len(self._data))

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        end = self._at + form.size
        self.expect(end <= len(self._data), "message is truncated")
        values = form.unpack_from(self._data, self._at)
        self._at = end
        return values

    def u8(self) -> int:
        self.expect(self._at < len(self._data), "message is truncated")
        self._at += 1
        return self._data[self._at - 1]

    def u16(self) -> int:
        return self.take(_U16)[0]

    def u32(self) -> int:
        return self.take(_U32)[0]

    def u64(self) -> int:
        return self.take(_U64)[0]

    def lsn(self) -> Lsn:
        return Lsn(self.u64())

    def flag(self) -> bool:
        value = self.u8()
        self.expect(value <= 1, "flag is neither 0 nor 1")
        return value == 1

    def blob(self) -> bytes:
        end = self.u32() + self._at
        self.expect(end <= len(self._data), "message is truncated")
        value = self._data[self._at : end]
        self._at = end
        return value

    def text(self) -> str:
        raw = self.blob()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MessageMalformed("text is not utf-8", at=self._at) from None

    def names(self) -> tuple[str, ...]:
        return tuple(self.text() for _ in range(self.u16()))

    def membership(self) -> Membership:
        try:
            return Membership(self.u32(), self.names(), self.names())
        except ValueError as error:
            raise MessageMalformed("membership is impossible", why=error) from None

    def terms(self) -> TermHistory:
        count = self.u32()
        self.expect(count * _ENTRY.size <= len(self._data) - self._at, "message is truncated")
        entries = (self.take(_ENTRY) for _ in range(count))
        try:
            return TermHistory(tuple(TermEntry(term, tli, Lsn(start)) for term, tli, start in entries))
        except ValueError as error:
            raise MessageMalformed("term history is impossible", why=error) from None

    def rest(self) -> bytes:
        value = self._data[self._at :]
        self._at = len(self._data)
        return value

    def end(self) -> None:
        self.expect(self._at == len(self._data), "message has bytes left over")
