"""A program's system calls, as strace saw them, in the order in which they began and ended."""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "sendto",
    "sendmsg",
    "fsync",
    "fdatasync",
    "rename",
    "openat",
)
INSTALL = "strace is missing: apt-get install strace"

_LINE = re.compile(r"(?P<pid>\d+)\s+(?P<at>\d+\.\d+) (?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_RESULT = re.compile(r"\)\s+= (?P<result>-?\d+|\?)(?P<more>.*)")
_TOOK = re.compile(r"<(\d+\.\d+)>$")
_FD = re.compile(r"\w+<(.*?)>(?=, |$)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    ``begun`` counts lines: a call that begins after another has ended has the higher ``begun``.
    """

    name: str
    begun: int
    ended: int
    end_s: float  # Seconds since 1970.
    target: str  # What its first descriptor is: a path, or a socket's two ends.
    strings: tuple[bytes, ...]
    numbers: tuple[int, ...]
    result: int


def wrapper(output: Path) -> list[str]:
    """What to put before a command to have it traced; the process started stays the program itself.

    Raises:
        FileNotFoundError: with how to install it.
    """
    if shutil.which("strace") is None:
        raise FileNotFoundError(INSTALL)
    form = ("-D", "-f", "-yy", "-ttt", "-T", "-xx", "-s", "4000000", "-e", "signal=none")
    return ["strace", *form, "-e", f"trace={','.join(CALLS)}", "-o", str(output)]


def parse(lines: Iterable[str]) -> Iterator[Call]:
    """The calls that ended, in the order of their ends."""
    open_calls: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        pid, at_s, rest = match["pid"], float(match["at"]), match["rest"]
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = number, rest.removesuffix("<unfinished ...>")
            continue
        if resumed := _RESUMED.match(rest):
            begun, start = open_calls.pop(pid, (number, f"{resumed['name']}("))
            yield from _call(start + resumed["rest"], begun, number, at_s)
        else:
            took = _TOOK.search(rest)
            yield from _call(rest, number, number, at_s + (float(took[1]) if took else 0.0))


def _call(text: str, begun: int, ended: int, end_s: float) -> Iterator[Call]:
    name, bracket, arguments = text.partition("(")
    end = _RESULT.search(arguments)
    if not bracket or end is None or name not in CALLS:
        return
    arguments = arguments[: end.start()].rstrip()
    target = _FD.match(arguments)
    strings = tuple(_bytes(found) for found in _STRING.findall(arguments))
    plain = _STRING.sub("", _FD.sub("", arguments, count=1))
    numbers = tuple(int(found) for found in re.findall(r"(?<![\w.:])\d+(?![\w.:])", plain))
    result = -1 if end["result"] == "?" else int(end["result"])
    yield Call(name, begun, ended, end_s, _plain(target[1]) if target else "", strings, numbers, result)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _plain(target: str) -> str:
    """A path is printed as bytes, a socket as text."""
    return _bytes(target).decode() if target.startswith("\\x") else target
