"""Functions that a program serves over SQL: what they take and give, and how a call finds its arguments."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from walproxy.wire import datum, sql
from walproxy.wire.datum import Type, Value
from walproxy.wire.errors import DATATYPE_MISMATCH, FEATURE_NOT_SUPPORTED, UNDEFINED_FUNCTION, SqlError

Row = Sequence[Value]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Argument:
    """``is_optional``: a call may leave it out, or give NULL; the function then gets None."""

    name: str
    type: Type
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """One function of ours.

    Args:
        arguments: optional ones last. A NULL for any other makes the result NULL, or no rows, without a call.
        columns: of the result. More than one, or ``is_set``, is asked for with ``SELECT * FROM``.
        call: gets one value an argument, and returns rows, at once or later. It raises SqlError to refuse.
        is_set: it may return any number of rows; else it is exactly one.
    """

    name: str
    arguments: tuple[Argument, ...]
    columns: tuple[Column, ...]
    call: Callable[..., Awaitable[Sequence[Row]] | Sequence[Row]]
    is_set: bool = False

    @property
    def signature(self) -> str:
        shown = (
            f"{a.name} {a.type.name}" + (" DEFAULT NULL" if a.is_optional else "") for a in self.arguments
        )
        return f"{self.name}({', '.join(shown)})"


Functions = Mapping[str, Function]
_PARAMETERS_MAX: Final = 65_535
_MISSING: Final = sql.Literal(None, datum.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Call:
    """A SELECT with its function found: one expression an argument, and the type of each ``$n``."""

    function: Function
    expressions: tuple[sql.Expression, ...]
    columns: tuple[Column, ...]
    parameters: tuple[Type, ...]

    def values(self, parameters: Sequence[Value]) -> list[Value] | None:
        """Values of the arguments; None if one that must not be NULL is. Raises SqlError."""
        values = []
        for argument, expression in zip(self.function.arguments, self.expressions, strict=True):
            try:
                value = _evaluate(expression, argument.type, parameters, self.parameters)
            except SqlError as error:
                message = f"argument {argument.name} of {self.function.name}: {error.message}"
                raise SqlError(error.sqlstate, message, hint=error.hint) from error
            if value is None and not argument.is_optional:
                return None
            values.append(value)
        return values


def resolve(select: sql.Select, functions: Functions, parameter_oids: Sequence[int]) -> Call:
    """Find the function of a SELECT, match arguments, and give every parameter a type.

    ``parameter_oids`` are as the client declared them; 0 or none at all means the type of the argument.
    """
    function = functions.get(select.function)
    if function is None:
        known = ", ".join(sorted(functions)) or "none"
        raise SqlError(
            UNDEFINED_FUNCTION, f"function {select.function} does not exist here", hint=f"Functions: {known}."
        )
    if not select.is_table and (function.is_set or len(function.columns) > 1):
        hint = f"Use SELECT * FROM {function.name}(...)."  # noqa: S608 - advice, not a query
        raise SqlError(FEATURE_NOT_SUPPORTED, f"{function.name} returns a table", hint=hint)
    expressions = _match(select, function)
    columns = function.columns
    if select.label is not None:
        columns = (Column(select.label, columns[0].type),)
    return Call(function, expressions, columns, _parameter_types(function, expressions, parameter_oids))


def _match(select: sql.Select, function: Function) -> tuple[sql.Expression, ...]:
    names = [argument.name for argument in function.arguments]
    given = dict(zip(names, select.positional, strict=False))
    wrong = len(select.positional) > len(names)
    for name, expression in select.named:
        wrong = wrong or name not in names or name in given
        given[name] = expression
    wrong = wrong or any(not a.is_optional and a.name not in given for a in function.arguments)
    if wrong:
        hint = f"It is {function.signature}."
        raise SqlError(UNDEFINED_FUNCTION, f"arguments do not fit function {function.name}", hint=hint)
    return tuple(given.get(name, _MISSING) for name in names)


def _parameter_types(
    function: Function, expressions: Sequence[sql.Expression], oids: Sequence[int]
) -> tuple[Type, ...]:
    found: dict[int, Type] = {number: datum.type_numbered(oid) for number, oid in enumerate(oids, 1) if oid}

    def visit(expression: sql.Expression, wanted: Type) -> None:
        match expression:
            case sql.Parameter(number):
                if not 1 <= number <= _PARAMETERS_MAX:
                    raise SqlError("42P02", f"there is no parameter ${number}")
                found.setdefault(number, wanted)
            case sql.Cast(operand, kind):
                visit(operand, kind)
            case sql.Array(items):
                for item in items:
                    visit(item, wanted.element or datum.TEXT)
            case sql.Literal():
                pass

    for argument, expression in zip(function.arguments, expressions, strict=True):
        visit(expression, argument.type)
    count = max([len(oids), *found], default=0)
    if missing := [number for number in range(1, count + 1) if number not in found]:
        raise SqlError("42P18", f"could not determine data type of parameter ${missing[0]}")
    return tuple(found[number] for number in range(1, count + 1))


def _evaluate(
    expression: sql.Expression, wanted: Type, values: Sequence[Value], types: Sequence[Type]
) -> Value:
    match expression:
        case sql.Literal(value, kind):
            return datum.coerce(value, kind, wanted)
        case sql.Parameter(number):
            return datum.coerce(values[number - 1], types[number - 1], wanted)
        case sql.Cast(operand, kind):
            return datum.coerce(_evaluate(operand, kind, values, types), kind, wanted)
        case sql.Array(items):
            if wanted.element is None:
                raise SqlError(DATATYPE_MISMATCH, f"{wanted.name} is wanted, not an array")
            return [_evaluate(item, wanted.element, values, types) for item in items]
