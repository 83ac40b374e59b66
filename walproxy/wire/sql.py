"""The small part of SQL that we serve: SHOW, SET, and SELECT of one function of ours.

Nothing is evaluated here: names become names, expressions become trees.
"""

import re
from dataclasses import dataclass
from typing import Final

from walproxy.wire import datum
from walproxy.wire.datum import Type, Value
from walproxy.wire.errors import FEATURE_NOT_SUPPORTED, SYNTAX_ERROR, SqlError

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|/\*.*?\*/)
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<lsn>[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}\b)
      | (?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+)
      | (?P<int>\d+)
      | (?P<param>\$\d{1,5})
      | (?P<word>[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*)
      | (?P<mark>::|=>|:=|[(),;.*=\[\]+-])
    """,
    re.VERBOSE | re.DOTALL,
)
_INT4_MAX: Final = (1 << 31) - 1
_DEPTH_MAX: Final = 32
_HELP: Final = "Served are SHOW name, SET, SELECT function(...) and SELECT * FROM function(...)."
_TRANSACTION: Final = {
    "begin": "BEGIN", "start": "BEGIN", "commit": "COMMIT", "end": "COMMIT",
    "rollback": "ROLLBACK", "abort": "ROLLBACK",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    value: Value
    type: Type


@dataclass(frozen=True, slots=True)
class Parameter:
    number: int


@dataclass(frozen=True, slots=True)
class Array:
    items: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Cast:
    operand: "Expression"
    type: Type


Expression = Literal | Parameter | Array | Cast


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class Show:
    name: str


@dataclass(frozen=True, slots=True)
class Transaction:
    command: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Accepted, without effect."""

    command: str


@dataclass(frozen=True, slots=True)
class Deallocate:
    """``name`` None means all."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Select:
    """``label``: the name that AS gives; ``is_table``: the function stands after FROM."""

    function: str
    positional: tuple[Expression, ...]
    named: tuple[tuple[str, Expression], ...]
    label: str | None
    is_table: bool


Statement = Empty | Show | Transaction | Ignored | Deallocate | Select


def tokens(text: str) -> list[Token]:
    """Cut text into tokens, without blanks and comments. Raises SqlError."""
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SqlError(SYNTAX_ERROR, f'syntax error at or near "{text[at : at + 20]}"')
        kind = str(match.lastgroup)
        if kind != "blank":
            found.append(Token(kind, match[0]))
        at = match.end()
    return found


class TokenReader:
    """Walks over tokens. Methods that demand something raise SqlError where it is not there."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._at = 0

    def peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def next(self) -> Token:
        token = self.peek()
        if token is None:
            raise SqlError(SYNTAX_ERROR, "syntax error at end of input")
        self._at += 1
        return token

    def accept(self, text: str) -> bool:
        """Take the next token if it is this mark, or this word in any case."""
        token = self.peek()
        if token is None or token.kind not in {"word", "mark"} or token.text.lower() != text:
            return False
        self._at += 1
        return True

    def accept_kind(self, kind: str) -> Token | None:
        token = self.peek()
        if token is None or token.kind != kind:
            return None
        self._at += 1
        return token

    def followed_by(self, *texts: str) -> bool:
        """The token after the next one is one of these."""
        after = self._tokens[self._at + 1 : self._at + 2]
        return bool(after) and after[0].text.lower() in texts

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail()

    def identifier(self) -> str:
        """A name, folded to lower case unless quoted."""
        token = self.next()
        if token.kind == "word":
            return token.text.lower()
        if token.kind == "quoted":
            return token.text[1:-1].replace('""', '"')
        self._at -= 1
        return self.fail()

    def string(self) -> str:
        token = self.accept_kind("string")
        return self.fail() if token is None else token.text[1:-1].replace("''", "'")

    def end(self) -> None:
        """Nothing may follow but a semicolon."""
        while self.accept(";"):
            pass
        if self.peek() is not None:
            self.fail()

    def fail(self) -> str:
        token = self.peek()
        where = "at end of input" if token is None else f'at or near "{token.text}"'
        raise SqlError(SYNTAX_ERROR, f"syntax error {where}", hint=_HELP)


def parse(text: str) -> Statement:
    """Read one statement.

    Raises:
        SqlError: it is not SQL (42601), or SQL that is not served here (0A000).
    """
    reader = TokenReader(text)
    statement = _statement(reader)
    if reader.accept(";"):
        while reader.accept(";"):
            pass
        if reader.peek() is not None:
            raise SqlError(FEATURE_NOT_SUPPORTED, "several statements in one query are not supported here")
    reader.end()
    return statement


def _statement(reader: TokenReader) -> Statement:
    token = reader.peek()
    if token is None or token.text == ";":
        return Empty()
    word = token.text.lower()
    if word in _TRANSACTION:
        reader.next()
        return _transaction(reader, _TRANSACTION[word])
    if word in {"set", "reset", "discard"}:
        reader.next()
        return _ignored(reader, word.upper())
    if reader.accept("show"):
        return Show(qualified_name(reader))
    if reader.accept("select"):
        return _select(reader)
    if reader.accept("deallocate"):
        reader.accept("prepare")
        return Deallocate(None if reader.accept("all") else reader.identifier())
    raise SqlError(FEATURE_NOT_SUPPORTED, f'"{token.text[:40]}" is not supported here', hint=_HELP)


def _transaction(reader: TokenReader, command: str) -> Transaction:
    """The rest of BEGIN and its like: options without effect on single statements."""
    while (token := reader.peek()) is not None and token.text != ";":
        if token.text.lower() in {"to", "prepared", "savepoint"} or token.kind == "string":
            raise SqlError(FEATURE_NOT_SUPPORTED, f'"{token.text}" is not supported here')
        if token.kind != "word" and token.text != ",":
            reader.fail()
        reader.next()
    return Transaction(command)


def _ignored(reader: TokenReader, command: str) -> Ignored:
    reader.identifier()
    while (token := reader.peek()) is not None and token.text != ";":
        reader.next()
    return Ignored("DISCARD ALL" if command == "DISCARD" else command)


def qualified_name(reader: TokenReader) -> str:
    name = reader.identifier()
    while reader.accept("."):
        name += "." + reader.identifier()
    return name


def _select(reader: TokenReader) -> Select:
    is_table = reader.accept("*")
    if is_table:
        reader.expect("from")
    name = qualified_name(reader)
    if not reader.accept("("):
        raise SqlError(FEATURE_NOT_SUPPORTED, "only functions can be selected here", hint=_HELP)
    positional, named = _arguments(reader)
    label = None
    if reader.accept("as") or ((token := reader.peek()) is not None and token.kind in {"word", "quoted"}):
        label = reader.identifier()
    token = reader.peek()
    if token is not None and token.text != ";":
        raise SqlError(
            FEATURE_NOT_SUPPORTED, f'"{token.text}" after a function is not supported here', hint=_HELP
        )
    return Select(name.removeprefix("pg_catalog."), positional, named, None if is_table else label, is_table)


def _arguments(reader: TokenReader) -> tuple[tuple[Expression, ...], tuple[tuple[str, Expression], ...]]:
    positional: list[Expression] = []
    named: list[tuple[str, Expression]] = []
    if reader.accept(")"):
        return (), ()
    while True:
        if reader.followed_by("=>", ":="):
            name = reader.identifier()
            reader.next()
            named.append((name, _expression(reader)))
        elif named:
            raise SqlError(SYNTAX_ERROR, "positional argument cannot follow named argument")
        else:
            positional.append(_expression(reader))
        if reader.accept(")"):
            return tuple(positional), tuple(named)
        reader.expect(",")


def _expression(reader: TokenReader, depth: int = 0) -> Expression:
    if depth > _DEPTH_MAX:
        raise SqlError(FEATURE_NOT_SUPPORTED, "expression is nested too deeply")
    found = _operand(reader, depth)
    while reader.accept("::"):
        found = Cast(found, _type(reader))
    return found


def _operand(reader: TokenReader, depth: int) -> Expression:
    if (token := reader.accept_kind("param")) is not None:
        return Parameter(int(token.text[1:]))
    token = reader.peek()
    if token is not None and token.kind == "string":
        return Literal(reader.string(), datum.UNKNOWN)
    if reader.accept("("):
        found = _expression(reader, depth + 1)
        reader.expect(")")
        return found
    if reader.accept("-"):
        return _number(reader, -1)
    if reader.accept("+") or (token is not None and token.kind in {"int", "float"}):
        return _number(reader, 1)
    if reader.accept("null"):
        return Literal(None, datum.UNKNOWN)
    if reader.accept("true"):
        return Literal(value=True, type=datum.BOOL)
    if reader.accept("false"):
        return Literal(value=False, type=datum.BOOL)
    if reader.accept("array"):
        return _array(reader, depth)
    if reader.accept("cast"):
        reader.expect("(")
        found = _expression(reader, depth + 1)
        reader.expect("as")
        kind = _type(reader)
        reader.expect(")")
        return Cast(found, kind)
    return _typed_literal(reader)


def _number(reader: TokenReader, sign: int) -> Literal:
    token = reader.next()
    if token.kind == "int":
        value = sign * datum.INT8.parse(token.text)
        return Literal(value, datum.INT4 if abs(value) <= _INT4_MAX else datum.INT8)
    if token.kind == "float":
        return Literal(sign * float(token.text), datum.FLOAT8)
    raise SqlError(SYNTAX_ERROR, f'syntax error at or near "{token.text}"', hint=_HELP)


def _array(reader: TokenReader, depth: int) -> Array:
    reader.expect("[")
    items: list[Expression] = []
    if not reader.accept("]"):
        items.append(_expression(reader, depth + 1))
        while reader.accept(","):
            items.append(_expression(reader, depth + 1))
        reader.expect("]")
    return Array(tuple(items))


def _typed_literal(reader: TokenReader) -> Expression:
    """``pg_lsn '0/1'``; anything else that begins with a name is a column or a nested call."""
    token = reader.peek()
    if token is None or token.kind not in {"word", "quoted"}:
        reader.fail()
    if reader.followed_by("(", ".", ",", ")"):
        raise SqlError(FEATURE_NOT_SUPPORTED, "arguments must be constants or parameters here")
    kind = _type(reader)
    return Cast(Literal(reader.string(), datum.UNKNOWN), kind)


def _type(reader: TokenReader) -> Type:
    name = reader.identifier()
    if name == "pg_catalog" and reader.accept("."):
        name = reader.identifier()
    if (name == "double" and reader.accept("precision")) or (
        name == "character" and reader.accept("varying")
    ):
        name = {"double": "float8", "character": "varchar"}[name]
    is_array = reader.accept("[")
    if is_array:
        reader.expect("]")
    return datum.type_named(name, is_array=is_array)
