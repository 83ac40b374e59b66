"""The native core: WAL decoding, redo and page layers, behind typed Python."""

from walcore import _native
from walcore.errors import (
    ImageInvalid,
    LayerCorrupt,
    LsnNotCovered,
    NoSuchBlock,
    NoSuchRelation,
    PageUnreadable,
    RedoFailed,
    WalcoreError,
    WalCorrupt,
)

__version__ = "0.1.0"

if _native.__version__ != __version__:
    raise ImportError(f"walcore is {__version__}, its native part {_native.__version__}: build it again")

__all__ = [
    "ImageInvalid",
    "LayerCorrupt",
    "LsnNotCovered",
    "NoSuchBlock",
    "NoSuchRelation",
    "PageUnreadable",
    "RedoFailed",
    "WalCorrupt",
    "WalcoreError",
    "__version__",
]
