"""Output formats: one module each, found by scanning this package or by an entry point.

A format is a module with ``NAME``, ``SUFFIX`` and ``render(report, **options) -> str``, or bytes where it
is no text. ``DEFAULT_FILE`` is where it goes instead of stdout when no file is named.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from analyzer.model import Report

ENTRY_POINTS = "analyzer.report"


@cache
def formats() -> dict[str, ModuleType]:
    """Format name -> its module, sorted by name. Ours win over an entry point of the same name."""
    found = [*_own_modules(), *(point.load() for point in entry_points(group=ENTRY_POINTS))]
    named: dict[str, ModuleType] = {}
    for module in found:
        if _is_format(module):
            named.setdefault(module.NAME, module)
    return dict(sorted(named.items()))


def render(report: Report, name: str, **options: object) -> str:
    """The report as text in the format ``name``; KeyError when there is no such format."""
    text: str = formats()[name].render(report, **options)
    return text


def _own_modules() -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def _is_format(module: ModuleType) -> bool:
    return all(hasattr(module, name) for name in ("NAME", "SUFFIX", "render"))
