"""The tool `calculator`: arithmetic on a syntax tree, with bounds on time and memory; nothing is ever evaluated."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from holdfast.errors import ToolError
from holdfast.tools.tool import tool

__all__ = ["calculator"]

Number = int | float

_BITS = 4096  # about 1,200 digits
_LENGTH = 500


def _digits(value: Number) -> int:
    """Rounding to 10 ** -digits works that power out: it must be bounded as well."""
    if not isinstance(value, int) or abs(value) > 400:
        raise ValueError("round takes a whole number of digits, at most 400")
    return value


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": lambda number, digits=None: round(number, digits if digits is None else _digits(digits)),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
# What people and models write for * * / - **
_SPELLINGS = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "^": "**"})


@tool(effect="pure", timeout=5.0)
def calculator(
    expression: Annotated[str, Field(min_length=1, max_length=_LENGTH, description="for example (17.5 + 3) * 2 ** 8")],
) -> str:
    """Work out an arithmetic expression.

    Knows + - * / // % **, parentheses, pi, e and abs, ceil, cos, exp, floor, log, log10, log2, max, min, round, sin,
    sqrt, tan.
    """
    try:
        tree = ast.parse(expression.translate(_SPELLINGS).strip(), mode="eval")
        value = _value(tree.body)
    except (SyntaxError, MemoryError, RecursionError, ValueError, TypeError) as exc:
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        raise ToolError(f"{expression!r} cannot be worked out: {reason or 'it is nested too deeply'}") from None
    except ZeroDivisionError:
        raise ToolError(f"{expression!r} divides by zero") from None
    except OverflowError:
        raise ToolError(f"{expression!r} is too large a number") from None
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return _bounded(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            # The size of a power is known before it is worked out, and must be: it may be larger than the machine.
            whole = isinstance(a, int) and isinstance(b, int)
            if isinstance(op, ast.Pow) and whole and abs(a) > 1 and int(a).bit_length() * b > _BITS:
                raise OverflowError
            return _bounded(_BINARY[type(op)](a, b))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*(_value(arg) for arg in args)))
        case ast.Tuple():
            raise ValueError("write numbers without thousands separators: 1000, not 1,000")
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
            raise ValueError(f"{name!r} is not known; known are {', '.join([*_CONSTANTS, *_FUNCTIONS])}")
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")


def _bounded(value: Any) -> Number:
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _BITS:
            raise OverflowError
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError
        return value
    raise ValueError("the result is not a real number")
