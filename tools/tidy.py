"""The house rules that no linter knows: ``python -m tools.tidy`` prints each breach and fails on any."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# Spelled in pieces, so that this file does not break its own rules.
LEFT_BEHIND = re.compile("FIX" + "ME|X" + r"XX\b")
UNFILED = re.compile(r"\bTO" + r"DO\b(?!\(#\d+\))")
RUST_TESTS = "#[cfg(test)]\nmod "
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def complaints(path: Path, text: str) -> Iterator[str]:
    """Every breach in one source file, as ``path:line: what``."""
    if path.stem in VAGUE_NAMES:
        yield f"{path}:1: a file is named after what is in it, not {path.stem}"
    for number, line in enumerate(text.splitlines(), start=1):
        if LEFT_BEHIND.search(line):
            yield f"{path}:{number}: a note to oneself left behind"
        if UNFILED.search(line):
            yield f"{path}:{number}: a thing to do needs its issue, as in TO" + "DO(#123)"
    if path.suffix == ".py":
        yield from _python(path, text)
    if path.suffix == ".rs":
        # The tests at the foot of a file are not counted: they should not push its code elsewhere.
        yield from _too_long(path, text.partition(RUST_TESTS)[0])


def _python(path: Path, text: str) -> Iterator[str]:
    yield from _too_long(path, text)
    tree = ast.parse(text)
    if text.strip() and ast.get_docstring(tree) is None:
        yield f"{path}:1: no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # A signature may be long: a command's options are data. The body may not.
            size = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            if size > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {size} lines, at most {FUNCTION_LINES_MAX}"


def _too_long(path: Path, text: str) -> Iterator[str]:
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{path}:1: {lines} lines, at most {FILE_LINES_MAX}"


def sources() -> Iterator[Path]:
    """The Python and Rust files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.rs"],
        capture_output=True,
        text=True,
        check=True,
    )
    yield from (path for path in map(Path, listed.stdout.splitlines()) if path.exists())


def main() -> None:
    found = [line for path in sources() for line in complaints(path, path.read_text())]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
