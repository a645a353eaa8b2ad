"""A rule file to start from."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from analyzer.errors import AnalyzerError

ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_rule(rule_id: str, folder: Path, taken: Collection[str]) -> Path:
    """Write ``folder/<rule_id>.yaml``: a rule that passes its own tests, to be changed.

    Raises AnalyzerError for an id that is malformed or taken, and for a file that is there already.
    """
    if not ID.fullmatch(rule_id):
        raise AnalyzerError(
            f"{rule_id!r} is no rule id: lower-case words joined by hyphens, as in loss-wobbles"
        )
    if rule_id in taken:
        raise AnalyzerError(f"there is a rule {rule_id} already: see `analyze explain {rule_id}`")
    path = folder / f"{rule_id}.yaml"
    text = files("analyzer.rulebook").joinpath("new_rule.yaml").read_text("utf-8")
    text = text.replace("id: my-rule", f"id: {rule_id}", 1).replace("FOLDER", folder.as_posix())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise AnalyzerError(f"{path} is there already; it was left as it is") from None
    except OSError as error:
        raise AnalyzerError(f"{path}: cannot be written: {error.strerror}") from None
    return path
