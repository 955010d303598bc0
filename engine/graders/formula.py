"""The arithmetic of a multi grader: + - * / ^, a few functions, names. Parsed, walked, never run as code.

All numbers are floats, so that `9^9^9` overflows at once instead of filling the memory.
"""

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 64
FUNCTIONS: Final[Mapping[str, Callable[..., float]]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: math.pow,
}


class FormulaError(Exception):
    """The formula cannot be read, or has no value for these numbers."""


def parse(formula: str) -> ast.expr:
    """Raises FormulaError."""
    if "**" in formula:
        raise FormulaError("write powers with ^")
    try:
        tree = ast.parse(formula.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError("it is no arithmetic expression") from error
    check(tree, depth=0)
    return tree


def check(node: ast.expr, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FormulaError(f"it is nested deeper than {MAX_DEPTH}")
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            inner: list[ast.expr] = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            inner = [operand]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS and args:
            inner = args
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            inner = []
        case ast.Name():
            inner = []
        case _:
            raise FormulaError(
                f"use + - * / ^, {', '.join(FUNCTIONS)}, numbers, brackets and the graders' names"
            )
    for each in inner:
        check(each, depth=depth + 1)


def names(formula: str) -> set[str]:
    """The graders it needs. Raises FormulaError."""
    tree = parse(formula)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}


def evaluate(formula: str, values: Mapping[str, float]) -> float:
    """Raises FormulaError, also for a division by zero and for what is no finite number."""
    try:
        result = float(worth(parse(formula), values))
    except (ArithmeticError, ValueError, TypeError, KeyError) as error:
        raise FormulaError(f"it has no value here: {type(error).__name__}") from error
    if not math.isfinite(result):
        raise FormulaError("its value is no finite number")
    return result


def worth(node: Any, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](worth(node.left, values), worth(node.right, values))
    if isinstance(node, ast.UnaryOp):
        value = worth(node.operand, values)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call):
        given = [worth(each, values) for each in node.args]
        function = FUNCTIONS[node.func.id]  # type: ignore[attr-defined]
        return float(function(given) if len(given) == 1 and function in (min, max) else function(*given))
    return float(values[node.id] if isinstance(node, ast.Name) else node.value)
