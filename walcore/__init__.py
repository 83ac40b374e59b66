"""The native core: WAL decoding, redo and page layers, behind typed Python."""

from walcore import _native
from walcore.errors import ImageInvalid, LayerCorrupt, PageUnreadable, RedoFailed, WalCorrupt, WalcoreError

__version__ = "0.1.0"

if _native.__version__ != __version__:
    raise ImportError(f"walcore is {__version__} but its native part is {_native.__version__}: build it again")

__all__ = [
    "ImageInvalid",
    "LayerCorrupt",
    "PageUnreadable",
    "RedoFailed",
    "WalCorrupt",
    "WalcoreError",
    "__version__",
]
