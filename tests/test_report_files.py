"""Reports by way of the command line: which formats there are, and where each goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_runs import overfitting

from analyzer.cli import FORMATS, cli
from analyzer.report import formats


@pytest.fixture(autouse=True)
def _in_a_folder_with_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overfitting(Path("exp/metrics.csv"))


def analyze(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False, prog_name="analyze")


def test_the_command_line_offers_every_format_of_ours() -> None:
    assert set(FORMATS) == set(formats())


@pytest.mark.parametrize(
    ("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!doctype html")]
)
def test_pages_and_pictures_go_to_a_file_and_to_stdout_when_asked(form: str, start: bytes) -> None:
    result = analyze("exp", "--report", form)
    assert result.exit_code == 0 and result.stdout_bytes == b"" and f"report.{form}" in result.stderr
    assert Path(f"report.{form}").read_bytes().startswith(start)
    assert analyze("exp", "--report", form, "--output", "-").stdout_bytes.startswith(start)


def test_annotations_go_to_stdout_beside_a_page_in_a_file() -> None:
    result = analyze("exp", "--report", "github", "--report", "html", "--fail-on", "warning")
    assert result.exit_code == 1
    assert result.stdout.startswith("::warning title=exp%3A ") and Path("report.html").exists()


def test_pictures_and_text_share_a_stem() -> None:
    analyze("exp", "--report", "png", "--report", "github", "--output", "out/today")
    assert sorted(p.name for p in Path("out").iterdir()) == ["today.github.txt", "today.png"]


def test_a_missing_path_is_answered_with_one_of_a_similar_name() -> None:
    result = analyze("expp")
    assert result.exit_code == 3 and "did you mean exp?" in result.stderr
    assert "did you mean" not in analyze("nothing-like-it").stderr
