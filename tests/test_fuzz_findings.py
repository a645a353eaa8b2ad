"""Inputs that the targets in ``fuzz/`` found, and what they must give."""

from __future__ import annotations

from pathlib import Path

from analyzer.ingest import delimited


def test_rows_of_other_lengths_below_numbers_without_names(tmp_path: Path) -> None:
    """The rows that were looked at first are not all the rows that names are found by."""
    path = tmp_path / "log.tsv"
    path.write_bytes(b"inf,inf\nn\n" + b"\n" * 430 + b"\ro")
    reading = delimited.read(path)
    assert reading.series == ()
    assert "no-series" in [problem.kind for problem in reading.problems]
