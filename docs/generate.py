"""Write the generated pages (features, diagnoses, formats) and the copy of the role table that is read.

usage: python docs/generate.py [--check]     with --check, fail where a page is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import yaml

from analyzer.checkpoints import containers, open_checkpoint
from analyzer.features import specs
from analyzer.ingest import HEAD_BYTES, ingestor_for, ingestors
from analyzer.rulebook import load_rules

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "tests" / "formats"
WEIGHTS = HERE.parent / "tests" / "checkpoint_files"
NOTE = "<!-- Written by docs/generate.py; edit the code it reads instead. -->\n"


def features_page() -> str:
    lines = ["# Features", "", "Named measurements of a run, what a rule's conditions may ask for.", ""]
    lines += [
        "A curve is measured as a cost: for a metric of which more is better, *rise* means getting worse. "
        "Ratios do not depend on the scale of the loss or on the logging interval. Where a curve is positive "
        "and spans more than three decades, levels are compared on a log scale.",
    ]
    ordered = sorted(specs().values(), key=lambda s: (s.family, s.name))
    for family, members in groupby(ordered, key=lambda s: s.family):
        lines += [
            "",
            f"## {family.replace('_', ' ')}",
            "",
            "| feature | unit | range | meaning |",
            "|---|---|---|---|",
        ]
        lines += [f"| `{s.name}` | {s.unit} | {s.low:g} … {s.high:g} | {s.meaning} |" for s in members]
    return "\n".join([*lines, ""])


def diagnoses_page() -> str:
    lines = ["# Diagnoses", "", "Every rule that ships. `analyze explain ID` prints one in full.", ""]
    rules = sorted(load_rules(), key=lambda r: (r.family, r.id))
    for family, members in groupby(rules, key=lambda r: r.family):
        lines += ["", f"## {family}", "", "| id | severity | what it says | remedies |", "|---|---|---|---|"]
        for rule in members:
            remedies = "; ".join(r.title for r in rule.remedies)
            lines.append(f"| `{rule.id}` | {rule.severity} | {rule.title} | {remedies} |")
    return "\n".join([*lines, ""])


def formats_page() -> str:
    lines = [
        "# Formats",
        "",
        "A file is given to the first format that claims it, by its name and first 4 KiB.",
        "",
    ]
    lines += ["## Logs", "", "| format | what is read |", "|---|---|"]
    lines += [f"| {i.NAME} | {i.SUMMARY} |" for i in ingestors()]
    lines += [
        "",
        "Tried on what these writers wrote (`benchmarks/make_format_samples.py`, `tests/formats/`), and in tests",
    ]
    lines += [
        "also on what torch's and tensorboardX's SummaryWriter write:",
        "",
        "| writer | version | read as |",
        "|---|---|---|",
    ]
    lines += [
        f"| {writer} | {version} | {', '.join(formats)} |" for writer, version, formats in sorted(writers())
    ]
    lines += ["", "## Checkpoints", "", "| container | what is read |", "|---|---|"]
    lines += [f"| {c.NAME} | {c.SUMMARY} |" for c in containers()]
    lines += [
        "",
        "Tried, tensor by tensor, on what these writers wrote (`tests/checkpoint_files/`), and in tests also on what",
        "torch and safetensors write; DeepSpeed's folders of other numbers of ranks are laid out by hand:",
        "",
        "| written by | version | read as |",
        "|---|---|---|",
    ]
    lines += [f"| {by} | {version} | {form} |" for by, version, form in checkpoint_writers()]
    return "\n".join([*lines, ""])


def writers() -> Iterator[tuple[str, str, list[str]]]:
    """The real writers of the samples, and the formats that their files are read as."""
    for path in SAMPLES.glob("*/truth.json"):
        truth = json.loads(path.read_text(encoding="utf-8"))
        files = [path.parent / name for name in truth["files"]]
        claimed = (ingestor_for(file, file.read_bytes()[:HEAD_BYTES]) for file in files)
        yield truth["writer"], truth["version"], sorted({ingestor.NAME for ingestor in claimed if ingestor})


def checkpoint_writers() -> Iterator[tuple[str, str, str]]:
    """The real writers of the checkpoints among the tests' files, and what these are read as."""
    written = json.loads((WEIGHTS / "writers.json").read_text(encoding="utf-8"))
    for name, (by, version) in written.items():
        yield by, version, open_checkpoint(WEIGHTS / name).format


def role_table() -> str:
    """``roles.yaml`` as JSON, which every reading of a log loads: parsing YAML takes twenty milliseconds more."""
    text = (HERE.parent / "analyzer" / "roles.yaml").read_text(encoding="utf-8")
    return json.dumps(yaml.safe_load(text), ensure_ascii=False, indent=1) + "\n"


PAGES = {"features.md": features_page, "diagnoses.md": diagnoses_page, "formats.md": formats_page}


def written() -> Iterator[tuple[Path, str]]:
    """Every generated file, and what is to be in it."""
    for name, page in PAGES.items():
        yield HERE / name, NOTE + page()
    yield HERE.parent / "analyzer" / "roles.json", role_table()


def stale() -> list[str]:
    """Names of the files that differ from what would be written."""
    return [path.name for path, text in written() if _current(path) != text]


def _current(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        outdated = stale()
        if outdated:
            print("out of date, run python docs/generate.py:", ", ".join(outdated))
        return bool(outdated)
    for path, text in written():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
