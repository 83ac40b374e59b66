"""The house rules hold for the tree, and each of them can be broken."""

from pathlib import Path

import pytest

from tools.tidy import complaints, sources

LONG_FUNCTION = '"""Doc."""\n\n\ndef f() -> None:\n' + "    print()\n" * 71

BREACHES = [
    ("a.py", "x = 1\n", "no module docstring"),
    ("a.py", '"""Doc."""\n' + "x = 1\n" * 600, "601 lines"),
    ("a.py", LONG_FUNCTION, "f has 71 lines"),
    ("a.py", '"""Doc."""\n# FIX' + "ME: later\n", "left behind"),
    ("a.py", '"""Doc."""\n# TO' + "DO: later\n", "needs its issue"),
    ("utils.py", '"""Doc."""\n', "named after"),
    ("a.rs", "// x\n" * 601, "601 lines"),
]


@pytest.mark.parametrize(("name", "text", "expected"), BREACHES)
def test_a_breach_is_named(name: str, text: str, expected: str) -> None:
    (found,) = complaints(Path(name), text)

    assert expected in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""Doc."""\n# TO' + "DO(#12): later\n"),
        ("a.rs", "// x\n" * 600 + "#[cfg(test)]\nmod tests {\n" + "// x\n" * 600 + "}\n"),
        ("__init__.py", ""),
    ],
)
def test_what_the_rules_allow_passes(name: str, text: str) -> None:
    assert list(complaints(Path(name), text)) == []


def test_the_tree_is_tidy() -> None:
    found = [line for path in sources() for line in complaints(path, path.read_text())]

    assert found == []
