"""The whole job on other people's logs, where they lie beside the checkout; skipped where not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import analyzer

REAL = Path(__file__).parent.parent.parent / "shared" / "real_logs"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real logs beside the checkout")
def test_every_file_is_read_or_named_with_a_reason(monkeypatch):
    monkeypatch.chdir(REAL)
    report = analyzer.analyze(".")
    problems = [*report.problems, *(p for run in report.runs for p in run.problems)]
    assert not [p for p in problems if p.kind in ("internal", "rule-error")]
    read = {Path(file) for run in report.runs for file in run.run.files}
    named = {Path(p.path) for p in problems}
    passed_over = " ".join(p.message for p in problems if p.kind == "passed-over")
    with Path("INDEX.tsv").open(encoding="utf-8") as index:
        files = [Path(row["file"]) for row in csv.DictReader(index, delimiter="\t")]
    lost = [f for f in files if f not in read | named and f.name not in passed_over]
    assert not lost
    assert len(read & set(files)) > 0.6 * len(files)
