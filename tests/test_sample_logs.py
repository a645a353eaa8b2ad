"""The golden test: every sample story gets its diagnosis first, and no alarm on the healthy ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import analyzer
from analyzer.model import RunReport

SAMPLES = Path(__file__).parent.parent / "sample_logs"
STORIES: dict[str, str | list[str]] = yaml.safe_load(
    (Path(__file__).parent / "sample_stories.yaml").read_text()
)


@pytest.fixture(scope="module")
def reports() -> dict[str, RunReport]:
    report = analyzer.analyze(SAMPLES)
    assert {p.kind for p in report.problems} <= {"passed-over"}
    return {run.run.name.split("/")[0]: run for run in report.runs}


def test_every_folder_is_one_run_with_a_story(reports):
    assert set(reports) == set(STORIES) == {p.name for p in SAMPLES.iterdir() if p.is_dir()}


@pytest.mark.parametrize("story", [s for s, expected in STORIES.items() if expected != "healthy"])
def test_the_story_s_diagnosis_ranks_first(reports, story):
    findings = [finding.rule for finding in reports[story].findings]
    assert findings and findings[0] in STORIES[story], findings


@pytest.mark.parametrize("story", [s for s, expected in STORIES.items() if expected == "healthy"])
def test_no_alarm_on_a_healthy_run(reports, story):
    alarms = [f.rule for f in reports[story].findings if f.severity != "info"]
    assert not alarms
    assert reports[story].verdict in ("healthy", "not-assessed")


def test_the_samples_stay_small():
    assert sum(p.stat().st_size for p in SAMPLES.rglob("*") if p.is_file()) < 5_000_000
