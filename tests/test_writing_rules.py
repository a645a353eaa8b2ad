"""A user's own rule: from the file to start from to the finding, as the tutorial tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_runs import falling, table

from analyzer.cli import cli

TUTORIAL = Path(__file__).resolve().parent.parent / "docs" / "writing-rules.md"


def analyze(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="analyze")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_file_to_start_from_passes_its_own_tests() -> None:
    made = analyze("rules", "new", "loss-wobbles", "--folder", "mine")
    assert made.exit_code == 0 and Path("mine/loss-wobbles.yaml").is_file()
    assert analyze("rules", "check", "mine").exit_code == 0
    assert "3 passed, 0 failed" in analyze("rules", "test", "mine").output


@pytest.mark.parametrize(
    ("rule_id", "said"),
    [("overfitting", "analyze explain overfitting"), ("../evil", "no rule id"), ("Loss_X", "no rule id")],
)
def test_an_id_that_will_not_do_is_refused(rule_id: str, said: str, tmp_path: Path) -> None:
    made = analyze("rules", "new", rule_id)
    assert made.exit_code == 2 and said in made.output
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_file_that_is_there_is_never_overwritten() -> None:
    Path("my-rules").mkdir()
    Path("my-rules/mine.yaml").write_text("precious")
    made = analyze("rules", "new", "mine")
    assert made.exit_code == 2 and "left as it is" in made.output
    assert Path("my-rules/mine.yaml").read_text() == "precious"


def test_the_tutorial_ends_with_a_rule_that_works() -> None:
    """Every command of the tutorial, in its order, with its rule."""
    text = TUTORIAL.read_text("utf-8")
    found = re.search(r"<!-- rule -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    commands = [
        line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    table(Path("runs/a/metrics.csv"), {"train_loss": falling, "lr": lambda _: 0.003})
    assert analyze(*commands[0].split()[1:]).exit_code == 0
    Path("team-rules/forgotten-schedule.yaml").write_text(found[1])
    outputs = [analyze(*command.split()[1:]) for command in commands[1:]]
    assert [result.exit_code for result in outputs] == [0, 0, 0]
    assert "3 passed" in outputs[1].output
    assert "forgotten-schedule" in outputs[2].output
    assert "0.003" in outputs[2].output  # the run's own learning rate
