"""The command line of pg_waldump, read as its own getopt and sscanf read it."""

import getopt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from walcore._native import rmgr_names
from walproxy.inspect.waldump.ended import BadArgument, Ended
from walproxy.wire.lsn import Lsn

_SHORT: Final = "bB:e:fF:n:p:qr:R:s:t:wx:z"
_LONG: Final = {
    "bkp-details": "-b",
    "block=": "-B",
    "end=": "-e",
    "follow": "-f",
    "fork=": "-F",
    "fullpage": "-w",
    "limit=": "-n",
    "path=": "-p",
    "quiet": "-q",
    "relation=": "-R",
    "rmgr=": "-r",
    "start=": "-s",
    "timeline=": "-t",
    "xid=": "-x",
    "stats=": "-z",
    "save-fullpage=": "--save-fullpage",
}
_FORKS: Final = ("main", "fsm", "vm", "init")
_NUMBER: Final = r"\s*([+-]?\d+)"
_HEX: Final = r"\s*([+-]?(?:0[xX])?[0-9a-fA-F]+)"
_UINT_MAX: Final = 0xFFFF_FFFF


@dataclass(slots=True)
class Options:
    """What was asked for; None where nothing was said."""

    bkp_details: bool = False
    block: int | None = None
    end_lsn: int = 0
    follow: bool = False
    fork: int | None = None
    limit: int | None = None
    path: str | None = None
    quiet: bool = False
    rmgrs: set[int] = field(default_factory=set)
    relation: tuple[int, int, int] | None = None
    start_lsn: int = 0
    timeline: int | None = None
    full_page: bool = False
    xid: int | None = None
    stats: str | None = None
    save_full_page: str | None = None
    files: Sequence[str] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line, the program's name left out.

    Raises:
        BadArgument: pg_waldump refuses it.
        Ended: `--rmgr=list` was answered.

    Source:
        ``main`` in ``src/bin/pg_waldump/pg_waldump.c``.
    """
    if not arguments:
        raise BadArgument("no arguments specified")
    try:
        # Only with "=" does --stats take a value.
        named, files = getopt.gnu_getopt(
            ["--stats=rmgr" if arg in ("--stats", "--stat") else arg for arg in arguments],
            _SHORT,
            list(_LONG),
        )
    except getopt.GetoptError as error:
        raise BadArgument(error.msg) from error
    options = Options(files=files)
    long = {f"--{name.rstrip('=')}": short for name, short in _LONG.items()}
    for name, value in named:
        _set(options, long.get(name, name), value)
    if options.block is not None and options.relation is None:
        raise BadArgument("option -B/--block requires option -R/--relation to be specified")
    if len(files) > 2:
        raise BadArgument(f'too many command-line arguments (first is "{files[2]}")')
    return options


def _set(options: Options, name: str, value: str) -> None:
    match name:
        case "-b":
            options.bkp_details = True
        case "-f":
            options.follow = True
        case "-q":
            options.quiet = True
        case "-w":
            options.full_page = True
        case "-p":
            options.path = value
        case "--save-fullpage":
            options.save_full_page = value
        case "-z":
            if value not in ("", "rmgr", "record"):
                raise BadArgument(f"unrecognized value for option --stats: {value}")
            options.stats = value or "rmgr"
        case "-s":
            options.start_lsn = _lsn(value)
        case "-e":
            options.end_lsn = _lsn(value)
        case _:
            _choose(options, name, value)


def _choose(options: Options, name: str, value: str) -> None:
    """Take an option that says which records."""
    match name:
        case "-B":
            options.block = _unsigned(value, f'invalid block number: "{value}"')
            if options.block == _UINT_MAX:
                raise BadArgument(f'invalid block number: "{value}"')
        case "-F":
            if value not in _FORKS:
                raise BadArgument(f'invalid fork name: "{value}"')
            options.fork = _FORKS.index(value)
        case "-n":
            limit = _scanned(_NUMBER, value, f'invalid value "{value}" for option -n/--limit')
            options.limit = int(limit[1]) if int(limit[1]) > 0 else None
        case "-r":
            options.rmgrs.add(_rmgr(value))
        case "-R":
            options.relation = _relation(value)
        case "-t":
            options.timeline = _timeline(value)
        case "-x":
            options.xid = _unsigned(value, f'invalid transaction ID specification: "{value}"')
        case _:
            raise AssertionError(name)


def _scanned(pattern: str, text: str, complaint: str, detail: str | None = None) -> re.Match[str]:
    """As sscanf: what follows the match does not matter."""
    match = re.match(pattern, text)
    if match is None:
        raise BadArgument(complaint, detail)
    return match


def _unsigned(text: str, complaint: str) -> int:
    return int(_scanned(_NUMBER, text, complaint)[1]) & _UINT_MAX


def _lsn(text: str) -> int:
    match = _scanned(f"{_HEX}/{_HEX}", text, f'invalid WAL location: "{text}"')
    high, low = (int(part, 16) & _UINT_MAX for part in match.groups())
    return Lsn(high << 32 | low)


def _relation(text: str) -> tuple[int, int, int]:
    complaint = f'invalid relation specification: "{text}"'
    detail = 'Expecting "tablespace OID/database OID/relation filenode".'
    match = _scanned(f"{_NUMBER}/{_NUMBER}/{_NUMBER}", text, complaint, detail)
    spc, db, rel = (int(part) & _UINT_MAX for part in match.groups())
    if not spc or not rel:
        raise BadArgument(complaint, detail)
    return spc, db, rel


def _rmgr(name: str) -> int:
    builtin = [known.lower() for known in rmgr_names()]
    if name.lower() == "list":
        raise Ended(0, output="".join(f"{known}\n" for known in rmgr_names()))
    if match := re.match(r"custom\s*([+-]?\d{1,3})", name):
        if 128 <= int(match[1]) <= 255:
            return int(match[1])
        raise BadArgument(f'custom resource manager "{name}" does not exist')
    if name.lower() not in builtin:
        raise BadArgument(f'resource manager "{name}" does not exist')
    return builtin.index(name.lower())


def _timeline(text: str) -> int:
    match = re.fullmatch(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)\s*", text)
    if match is None:
        raise BadArgument(f'invalid value "{text}" for option -t/--timeline')
    digits = match[2]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") and digits != "0" else 10
    value = int(digits, base)
    if match[1] == "-" or not 1 <= value <= _UINT_MAX:
        raise BadArgument(f"-t/--timeline must be in range 1..{_UINT_MAX}")
    return value
