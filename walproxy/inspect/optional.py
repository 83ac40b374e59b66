"""Packages that come as extras."""

import importlib
from types import ModuleType

from walproxy.inspect.errors import TargetUnusable


def optional(module: str, *, extra: str, option: str) -> ModuleType:
    """Import a module of a package that not everybody has installed.

    Raises:
        TargetUnusable: it is not there; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        what = f"option {option} needs {package}: pip install 'walproxy[{extra}]'"
        raise TargetUnusable(what, reason=error) from error
