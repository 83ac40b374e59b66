"""The parts that messages are made of: integers, strings, counted bytes."""

import struct

from walproxy.wire.errors import RemoteProtocolError

_INT16 = struct.Struct("!h")
_INT32 = struct.Struct("!i")
_UINT16 = struct.Struct("!H")
_UINT32 = struct.Struct("!I")


def int16(value: int) -> bytes:
    return _INT16.pack(value)


def int32(value: int) -> bytes:
    return _INT32.pack(value)


def uint16(value: int) -> bytes:
    return _UINT16.pack(value)


def uint32(value: int) -> bytes:
    return _UINT32.pack(value)


def cstring(text: str) -> bytes:
    return text.encode() + b"\0"


def counted(value: bytes | None) -> bytes:
    """A length and that many bytes; -1 and none for NULL."""
    return int32(-1) if value is None else int32(len(value)) + value


class BodyReader:
    """Takes a body apart. Every method raises RemoteProtocolError if the body does not hold what is asked."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if length < 0 or end > len(self._body):
            raise RemoteProtocolError("message ends too early", length=len(self._body))
        taken = self._body[self._at : end]
        self._at = end
        return taken

    def int16(self) -> int:
        return int(_INT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        return int(_INT32.unpack(self.take(4))[0])

    def uint16(self) -> int:
        return int(_UINT16.unpack(self.take(2))[0])

    def uint32(self) -> int:
        return int(_UINT32.unpack(self.take(4))[0])

    def cstring(self) -> str:
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise RemoteProtocolError("string in message has no end", length=len(self._body))
        text = self.take(end - self._at)
        self._at += 1
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("string in message is not UTF-8", at=error.start) from error

    def counted(self) -> bytes | None:
        length = self.int32()
        return None if length == -1 else self.take(length)

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    def end(self) -> None:
        if self._at != len(self._body):
            raise RemoteProtocolError("message is longer than its content", extra=len(self._body) - self._at)
