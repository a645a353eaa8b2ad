"""Which rules are applied."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from analyzer.errors import AnalyzerError
from analyzer.model import Rule
from analyzer.rulebook.nodes import did_you_mean


def selected(
    rules: Iterable[Rule], select: Collection[str] = (), ignore: Collection[str] = ()
) -> tuple[Rule, ...]:
    """The rules named by ``select`` (all when empty) without those named by ``ignore``."""
    rules = tuple(rules)
    ids = [rule.id for rule in rules]
    unknown = [name for name in (*select, *ignore) if name not in ids]
    if unknown:
        lines = (f"unknown rule '{name}'; {did_you_mean(name, ids)}".rstrip("; ") for name in unknown)
        raise AnalyzerError("\n".join(lines))
    return tuple(r for r in rules if (not select or r.id in select) and r.id not in ignore)
