"""Errors a user can cause. Each says what, where, and what to do next."""

from __future__ import annotations

from typing import NamedTuple


class AnalyzerError(Exception):
    """Any failure whose message is meant for the user as it is."""


class IngestError(AnalyzerError):
    """A file that cannot be read at all. ``kind`` is that of :class:`analyzer.model.Problem`."""

    def __init__(self, path: str, message: str, kind: str = "unreadable", offset: int | None = None):
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
        self.kind = kind
        self.offset = offset


class RuleProblem(NamedTuple):
    """One mistake in a rule file."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.path}:{self.line}:{self.column}: {self.message}{hint}"


class RuleError(AnalyzerError):
    """Every mistake found in the rule files, all at once."""

    def __init__(self, problems: list[RuleProblem]):
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems
