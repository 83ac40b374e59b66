"""What the native core raises.

WalcoreError
├── WalCorrupt        bytes of a stream are not the WAL they should be
│   └── ImageInvalid  a full-page image does not restore to a page
├── PageUnreadable    one page cannot be rebuilt; everything else can
│   └── RedoFailed    a record does not fit the page it changes
├── NoSuchRelation    the fork does not exist at that LSN
├── NoSuchBlock       the fork exists, and is shorter
├── LsnNotCovered     the LSN is not in the range of the layers asked
└── LayerCorrupt      a layer file is not what was written
"""


class WalcoreError(Exception):
    """Base of the errors that leave the native core."""


class WalCorrupt(WalcoreError):
    """The WAL is damaged from here on. Stop; fetch another copy."""


class ImageInvalid(WalCorrupt):
    """A full-page image does not restore to a page."""


class PageUnreadable(WalcoreError):
    """The page cannot be rebuilt at this LSN. Say so to the client; others are not affected."""


class RedoFailed(PageUnreadable):
    """A record does not fit the page it changes. The page is refused, never guessed."""


class NoSuchRelation(WalcoreError):
    """The fork does not exist at this LSN. Say so to the client."""


class NoSuchBlock(WalcoreError):
    """The fork exists at this LSN and is shorter. Say so to the client."""


class LsnNotCovered(WalcoreError):
    """The LSN is outside the range of this Reader's layers. Ask a newer Reader, or refuse."""


class LayerCorrupt(WalcoreError):
    """A layer file fails its checksum. Use another copy, or rebuild the layer from WAL."""
