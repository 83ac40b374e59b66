"""Bytes in, whole frames out."""

import struct
from typing import NamedTuple

from walproxy.wire.errors import RemoteProtocolError

_HEADER = struct.Struct("!cI")  # Tag, length.
_UNTAGGED = struct.Struct("!I")
_LENGTH_MIN = 4  # The length counts itself but not the tag.


class Frame(NamedTuple):
    tag: bytes
    body: bytes


class FrameBuffer:
    """Cuts a stream of bytes into frames. Opens no socket and reads no clock.

    Args:
        length_max: the longest frame a peer may send, its length word included. Nothing is set aside for a
            frame before its bytes are here.
    """

    def __init__(self, *, length_max: int) -> None:
        self._data = bytearray()
        self._length_max = length_max

    def feed(self, data: bytes) -> None:
        self._data += data

    def take_rest(self) -> bytes:
        """All that was fed and is not taken yet; it is gone from here."""
        rest = bytes(self._data)
        self._data.clear()
        return rest

    def next_frame(self) -> Frame | None:
        """Take the next whole frame, or return None until more is fed.

        Raises:
            RemoteProtocolError: the length is under 4 or over ``length_max``.
        """
        if len(self._data) < _HEADER.size:
            return None
        tag, length = _HEADER.unpack_from(self._data)
        if not _LENGTH_MIN <= length <= self._length_max:
            raise RemoteProtocolError("invalid message length", tag=tag, length=length)
        end = 1 + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[_HEADER.size : end])
        del self._data[:end]
        return Frame(tag, body)

    @property
    def has_frame(self) -> bool:
        """`next_frame` would give one, or raise."""
        if len(self._data) < _HEADER.size:
            return False
        length = int(_HEADER.unpack_from(self._data)[1])
        return not _LENGTH_MIN <= length <= self._length_max or len(self._data) > length

    def next_untagged(self, *, length_max: int) -> bytes | None:
        """Take the body of a packet that comes before authentication, which has no tag.

        Raises:
            RemoteProtocolError: its length is under 8 (a length and a code) or over ``length_max``.
        """
        if len(self._data) < _UNTAGGED.size:
            return None
        (length,) = _UNTAGGED.unpack_from(self._data)
        if not 2 * _UNTAGGED.size <= length <= length_max:
            raise RemoteProtocolError("invalid length of startup packet", length=length)
        if len(self._data) < length:
            return None
        body = bytes(self._data[_UNTAGGED.size : length])
        del self._data[:length]
        return body
