"""How well the role table reads real logs: against a truth written by hand.

    python benchmarks/roles.py TRUTH.yaml [--logs FOLDER]

The truth is a mapping with one key, ``logs``: a list of
``{log, tags: [...], train_loss: [...], val_loss: [...], learning_rate: [...], accuracy: [...]}``,
the tags a person would take for each (none: an empty list). With ``--logs`` the tags are those that
the readers find in ``FOLDER/log`` today instead of the listed ones.

A quantity is right in a log when something was found and all of it is in the truth, or nothing was
found and nothing is there. Parts of a loss count as the loss where there is no whole one, test values
as validation where there are none, as they do in an analysis.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analyzer.roles import RoleMatch, assign_roles

QUANTITIES: Mapping[str, tuple[tuple[str, ...], ...]] = {  # alternatives, best first
    "train_loss": (("train_loss",), ("train_loss_part",)),
    "val_loss": (("val_loss",), ("val_loss_part",), ("test_loss",), ("test_loss_part",)),
    "learning_rate": (("learning_rate",),),
    "accuracy": (("train_accuracy", "val_accuracy", "test_accuracy"),),
}


def found(matches: Mapping[str, RoleMatch], quantity: str) -> set[str]:
    """The tags that would be used for a quantity."""
    for roles in QUANTITIES[quantity]:
        if tags := {tag for tag, match in matches.items() if match.role in roles}:
            return tags
    return set()


def is_right(got: set[str], truth: set[str]) -> bool:
    return got <= truth and bool(got) == bool(truth)


def tags_of(entry: Mapping[str, Any], folder: Path | None) -> list[str]:
    """The tags listed, or those of the log as it is read today."""
    if folder is None:
        return list(entry["tags"])
    from analyzer import read

    path, _, name = entry["log"].partition("#")
    runs = read(folder / path)
    chosen = next((run for run in runs if run.name == name), runs[0] if runs else None)
    return [series.tag for series in chosen.series] if chosen else []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="measure the role table against a truth file")
    parser.add_argument("truth", type=Path)
    parser.add_argument("--logs", type=Path, help="read the logs anew from this folder")
    options = parser.parse_args(arguments)
    logs = yaml.safe_load(options.truth.read_text(encoding="utf-8"))["logs"]
    right = dict.fromkeys(QUANTITIES, 0)
    wholly = 0
    for entry in logs:
        matches = assign_roles(tags_of(entry, options.logs))
        wrong = []
        for quantity in QUANTITIES:
            got, truth = found(matches, quantity), set(entry[quantity])
            if is_right(got, truth):
                right[quantity] += 1
            else:
                wrong.append(f"{quantity}: got {sorted(got)}, not {sorted(truth)}")
        wholly += not wrong
        if wrong:
            print(f"{entry['log']}: {'; '.join(wrong)}")
    for name, count in {**right, "all four": wholly}.items():
        print(f"{name:14} {count:4} of {len(logs)} = {count / len(logs):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
