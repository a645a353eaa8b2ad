"""``lr > 0.01 and optimizer == adam``: conditions on hyperparameters, read by a parser of our own.

    expression = term {"or" term}       term = factor {"and" factor}
    factor     = "not" factor | "(" expression ")" | name operator value
    operator   = < <= > >= == = != ~            (~: contains, whatever the case)

Names and values are bare words or quoted. A name is a hyperparameter as logged, its last part, or the
canonical name of one known under many (``learning_rate``). A comparison with what a run did not log,
or cannot be compared, does not hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from analyzer.errors import AnalyzerError
from analyzer.hyperparameters import canonical, number_of
from analyzer.model import Scalar

Hyperparameters = Mapping[str, Scalar]
Predicate = Callable[[Hyperparameters], bool]

TOKEN = re.compile(
    r"""(?:(?P<sign><=|>=|==|!=|[<>=~()])|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s<>=!~()"']+))"""
)
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SIGNS = (*COMPARED, "==", "=", "!=", "~")
WORDS = {"true": True, "false": False, "yes": True, "no": False}
MOST = 200  # tokens
DEPTH = 50


class WhereError(AnalyzerError):
    """A condition that cannot be read."""


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    at: int
    kind: str  # sign, word (which may be a keyword), quoted


def where(text: str) -> Predicate:
    """The condition as a function of a run's hyperparameters. Raises WhereError."""
    tokens = _tokens(text)
    predicate, rest = _either(text, tokens, 0)
    if rest:
        raise _error(text, rest[0].at, f"'{rest[0].text}' is not expected here")
    return predicate


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while rest := text[at:].lstrip():
        at = len(text) - len(rest)
        match = TOKEN.match(text, at)
        if not match or len(found) == MOST:
            raise _error(text, at, "too long" if match else "cannot be read")
        kind = {"sign": "sign", "bare": "word"}.get(str(match.lastgroup), "quoted")
        found.append(Token(match[str(match.lastgroup)], match.start(), kind))
        at = match.end()
    return found


Parsed = tuple[Predicate, list[Token]]


def _either(text: str, tokens: list[Token], depth: int) -> Parsed:
    left, rest = _both(text, tokens, depth)
    while rest and _is(rest[0], "or"):
        right, rest = _both(text, rest[1:], depth)
        left = _or(left, right)
    return left, rest


def _both(text: str, tokens: list[Token], depth: int) -> Parsed:
    left, rest = _factor(text, tokens, depth)
    while rest and _is(rest[0], "and"):
        right, rest = _factor(text, rest[1:], depth)
        left = _and(left, right)
    return left, rest


def _factor(text: str, tokens: list[Token], depth: int) -> Parsed:
    if not tokens:
        raise _error(text, len(text), "ends where a comparison is expected")
    if depth > DEPTH:
        raise _error(text, tokens[0].at, "nested too deep")
    if _is(tokens[0], "not"):
        inner, rest = _factor(text, tokens[1:], depth + 1)
        return (lambda run: not inner(run)), rest
    if tokens[0].kind == "sign" and tokens[0].text == "(":
        inner, rest = _either(text, tokens[1:], depth + 1)
        if not rest or rest[0].text != ")":
            raise _error(text, tokens[0].at, "this parenthesis is not closed")
        return inner, rest[1:]
    return _comparison(text, tokens), tokens[3:]


def _is(token: Token, keyword: str) -> bool:
    return token.kind == "word" and token.text.lower() == keyword


def _or(left: Predicate, right: Predicate) -> Predicate:
    return lambda run: left(run) or right(run)


def _and(left: Predicate, right: Predicate) -> Predicate:
    return lambda run: left(run) and right(run)


def _comparison(text: str, tokens: list[Token]) -> Predicate:
    if len(tokens) < 3 or tokens[0].kind == "sign" or tokens[1].text not in SIGNS or tokens[2].kind == "sign":
        raise _error(text, tokens[0].at, "a comparison is a name, one of < <= > >= == != ~, and a value")
    name, sign, value = (token.text for token in tokens[:3])
    if sign in COMPARED and number_of(value) is None:
        raise _error(text, tokens[2].at, f"'{value}' is no number, which {sign} needs")
    return lambda run: _holds(looked_up(run, name), sign, value)


def looked_up(run: Hyperparameters, name: str) -> Scalar:
    """A hyperparameter by its name as logged, by its last part where that is told once, or canonical."""
    if name in run:
        return run[name]
    last = {key: value for key, value in run.items() if re.split(r"[./]", key)[-1] == name}
    if last and len(set(map(repr, last.values()))) == 1:
        return next(iter(last.values()))
    return canonical(run).get(name)


def _holds(found: Scalar, sign: str, value: str) -> bool:
    if found is None:
        return False
    if sign == "~":
        return value.lower() in str(found).lower()
    number, wanted = number_of(found), number_of(value)
    if sign in COMPARED:
        return number is not None and wanted is not None and bool(COMPARED[sign](number, wanted))
    return _equal(found, value, number, wanted) == (sign != "!=")


def _equal(found: Scalar, value: str, number: float | None, wanted: float | None) -> bool:
    if isinstance(found, bool):
        return WORDS.get(value.lower()) is found
    return number == wanted if None not in (number, wanted) else str(found).lower() == value.lower()


def _error(text: str, at: int, message: str) -> WhereError:
    return WhereError(f"{text}\n{' ' * at}^ {message}")
