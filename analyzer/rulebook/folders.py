"""Where the built-in rules live."""

from __future__ import annotations

from pathlib import Path

from analyzer.errors import AnalyzerError

PACKAGE = Path(__file__).resolve().parent.parent


def builtin_rules_dir(package: Path = PACKAGE) -> Path:
    """``_rules`` inside an installed package, else the checkout's ``rules`` beside it."""
    for folder in (package / "_rules", package.parent / "rules"):
        if folder.is_dir():
            return folder
    raise AnalyzerError(
        f"the built-in rules are neither in {package / '_rules'} nor in {package.parent / 'rules'}: "
        "the installation is incomplete, install the package again"
    )
