"""Puts names beside the numbers of relations in rendered records."""

import json
import re
from collections.abc import Callable
from typing import Final

from walproxy.inspect.names import Names

# No text within a JSON string can look like this: quotes are escaped there.
_RELATION: Final = re.compile(rb'"relation":"(\d+)/(\d+)/(\d+)"')


def naming(names: Names | None) -> Callable[[bytes], bytes]:
    """A function that adds ``name`` to each relation that is known, in lines of JSON."""
    if names is None:
        return lambda lines: lines
    known: dict[bytes, bytes] = {}

    def replaced(match: re.Match[bytes]) -> bytes:
        text = match[0]
        if text not in known:
            spc, db, rel = map(int, match.groups())
            label = names.label((spc, db, rel))
            known[text] = text if label is None else text + b',"name":' + json.dumps(label).encode()
        return known[text]

    return lambda lines: _RELATION.sub(replaced, lines)
