"""Writer and Reader: the few shapes that messages and the control file are made of, big-endian."""

import struct
from dataclasses import replace
from typing import Final, Self

from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Contact, Membership
from walproxy.quorum.terms import Seal, TermEntry, TermHistory
from walproxy.wire.lsn import Lsn

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_U64 = struct.Struct("!Q")
_ENTRY = struct.Struct("!QIQB")
_OPEN_ENTRY = struct.Struct("!QIQ")  # As it was before there were seals.

TERM_MAX: Final = (1 << 63) - 1  # Elections do not reach it; the ones after a term must fit, too.


def checked_term(term: int) -> int:
    """The term itself. Raises MessageMalformed: it cannot be one. Source: docs/quorum.md rule 3."""
    if term > TERM_MAX:
        raise MessageMalformed("term is impossible", term=term)
    return term


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

    def membership_rest(self, value: Membership) -> Self:
        """What `membership` leaves out: the first membership of a group has none of it."""
        self.u8(value.is_learning).u64(value.term).u16(len(value.contacts))
        for contact in value.contacts:
            self.text(contact.name).text(contact.conninfo).blob(contact.node_id)
        return self

    def terms(self, value: TermHistory, *, with_seals: bool = True) -> Self:
        """All entries; `with_seals` False is the form of before, for a history that holds none.

        Raises:
            MessageMalformed: it holds one.
        """
        self.u32(len(value.entries))
        for e in value.entries:
            if with_seals:
                self._parts.append(_ENTRY.pack(e.term, e.tli, e.start_lsn, e.seal))
            elif e.seal:
                raise MessageMalformed("the older form knows no seals", term=e.term)
            else:
                self._parts.append(_OPEN_ENTRY.pack(e.term, e.tli, e.start_lsn))
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

    def term(self) -> int:
        return checked_term(self.u64())

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

    def membership_rest(self, value: Membership) -> Membership:
        """`value` with what `Writer.membership_rest` wrote of it."""
        try:
            return replace(
                value,
                is_learning=self.flag(),
                term=self.term(),
                contacts=tuple(Contact(self.text(), self.text(), self.blob()) for _ in range(self.u16())),
            )
        except ValueError as error:
            raise MessageMalformed("membership is impossible", why=error) from None

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def terms(self, *, with_seals: bool = True) -> TermHistory:
        count, form = self.u32(), _ENTRY if with_seals else _OPEN_ENTRY
        self.expect(count * form.size <= len(self._data) - self._at, "message is truncated")
        entries = (self.take(form) for _ in range(count))
        try:
            return TermHistory(
                tuple(
                    TermEntry(checked_term(term), tli, Lsn(start), Seal(seal[0] if seal else 0))
                    for term, tli, start, *seal in entries
                )
            )
        except ValueError as error:
            raise MessageMalformed("term history is impossible", why=error) from None

    def rest(self) -> bytes:
        value = self._data[self._at :]
        self._at = len(self._data)
        return value

    def end(self) -> None:
        self.expect(self.is_at_end, "message has bytes left over")
