"""The command line: what it prints where, and with which code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_runs import events, falling, overfitting, table

from analyzer.cli import cli

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def analyze(*arguments: str) -> Result:
    """The command's result; anything it raises but its exit is an error of the test."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False, prog_name="analyze")


def report_of(result: Result) -> dict:  # type: ignore[type-arg]
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def overfitting_events(folder: Path) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in range(60):
            writer.add_scalar("Loss/train", falling(step), step)
            writer.add_scalar("Loss/val", falling(step) + 0.15 + max(0, step - 20) * 0.05, step)
    return folder


# --- exit codes -----------------------------------------------------------------------------------


def test_a_diagnosis_ends_well_whatever_it_finds() -> None:
    overfitting(Path("exp/metrics.csv"))
    result = analyze("exp")
    assert result.exit_code == 0
    assert "overfitting" in result.stdout and result.stderr == ""


@pytest.mark.parametrize(("level", "code"), [("never", 0), ("info", 1), ("warning", 1), ("critical", 0)])
def test_fail_on_ends_with_1_from_that_severity_on(level: str, code: int) -> None:
    overfitting(Path("exp/metrics.csv"))
    result = analyze("exp", "--report", "json", "--fail-on", level)
    severities = {f["severity"] for run in report_of(result)["runs"] for f in run["findings"]}
    assert "warning" in severities and "critical" not in severities
    assert result.exit_code == code


def test_fail_on_looks_at_every_run() -> None:
    table(Path("runs/a/metrics.csv"))
    overfitting(Path("runs/b/metrics.csv"))
    assert analyze("runs", "--fail-on", "warning", "-q").exit_code == 1
    assert analyze("runs/a", "--fail-on", "warning", "-q").exit_code == 0


def test_a_path_that_does_not_exist_ends_with_3_and_its_name() -> None:
    result = analyze("runz")
    assert result.exit_code == 3 and result.stdout == ""
    assert "runz: no such file or folder" in result.stderr


def test_a_missing_path_does_not_cost_the_others() -> None:
    overfitting(Path("exp/metrics.csv"))
    result = analyze("exp", "nope", "--report", "json")
    assert result.exit_code == 0
    assert [(p["path"], p["kind"]) for p in report_of(result)["problems"]] == [("nope", "missing")]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder has no such mode there")
def test_a_folder_that_may_not_be_read_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    overfitting(Path("exp/metrics.csv"))
    Path("closed").mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *rest, **more: path != "closed" and access(path, *rest, **more)
    )
    for command in ((), ("audit",)):
        result = analyze(*command, "exp", "closed", "--report", "json")
        assert result.exit_code == 0 and len(report_of(result)["runs"]) == 1


def test_an_interrupted_diagnosis_does_not_end_like_one_that_found_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("analyzer.pipeline.analyze_paths", interrupted)
    result = analyze("exp")
    assert result.exit_code == 130 and "Interrupted" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_ends_with_2_and_the_reason() -> None:
    overfitting(Path("exp/metrics.csv"))
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "analyzer", "exp"]
        result = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path.cwd(),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert (
        result.returncode == 2
        and result.stderr.strip() == "stdout: cannot be written: No space left on device"
    )


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("checkpont", "did you mean the command `analyze checkpoint`?"),
        ("-", "standard input is not read"),
        ("metrix.csv", "did you mean metrics.csv?"),
    ],
)
def test_a_path_that_is_not_there_may_be_meant_otherwise(word: str, hint: str) -> None:
    overfitting(Path("metrics.csv"))
    assert hint in analyze(word).stderr


def test_folders_of_runs_are_no_misspelt_commands() -> None:
    assert "did you mean" not in analyze("runs").stderr


def test_an_empty_folder_ends_with_3_and_says_so() -> None:
    Path("empty").mkdir()
    result = analyze("empty")
    assert result.exit_code == 3 and "No training log and no checkpoint was found there" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("garbage.csv", bytes(range(256)) * 9, "not a table"),
        ("model.pt", b"just text\n" * 50, "not a checkpoint"),
        ("events.out.tfevents.1.h", b"", "empty"),
        ("events.out.tfevents.1.h", b"this is no event file at all", "not an event file"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    ],
)
def test_a_file_that_cannot_be_read_ends_with_3_and_the_reason(
    name: str, content: bytes, reason: str
) -> None:
    Path(name).write_bytes(content)
    result = analyze(name)
    assert result.exit_code == 3 and result.stdout == ""
    assert name in result.stderr and reason in result.stderr and "Traceback" not in result.stderr


def test_a_truncated_event_file_among_good_runs_is_a_problem_of_its_run() -> None:
    overfitting_events(Path("runs/good"))
    (cut,) = overfitting_events(Path("runs/cut")).iterdir()
    cut.write_bytes(cut.read_bytes()[:-9])
    result = analyze("runs", "--report", "json")
    assert result.exit_code == 0
    problems = {run["name"]: [p["kind"] for p in run["problems"]] for run in report_of(result)["runs"]}
    assert problems == {"good": [], "cut": ["truncated"]}


# --- usage ----------------------------------------------------------------------------------------


def test_without_arguments_the_help_is_shown() -> None:
    result = analyze()
    assert result.exit_code == 2 and "PATH..." in result.output


def test_help_names_the_options_and_the_commands() -> None:
    result = analyze("--help")
    assert result.exit_code == 0
    for word in ("--report", "--output", "--rules", "--fail-on", "--role", "checkpoint", "explain"):
        assert word in result.stdout
    assert "(paths)" not in result.stdout


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    table(Path("exp/metrics.csv"))
    result = analyze("exp", "--selct", "overfitting")
    assert result.exit_code == 2 and result.stdout == ""
    assert "--selct" in result.stderr and "--select" in result.stderr
    assert "Usage: analyze [OPTIONS] PATHS..." in result.stderr


def test_an_unknown_format_is_answered_with_the_known_ones() -> None:
    result = analyze("exp", "--report", "xml")
    assert result.exit_code == 2 and "'junit'" in result.stderr


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_an_unknown_rule_is_named_with_the_nearest(option: str) -> None:
    table(Path("exp/metrics.csv"))
    result = analyze("exp", option, "overfiting")
    assert result.exit_code == 2 and result.stdout == ""
    assert "unknown rule 'overfiting'; did you mean 'overfitting'" in result.stderr


def test_select_and_ignore_choose_rules() -> None:
    overfitting(Path("exp/metrics.csv"))

    def fired(*options: str) -> set[str]:
        (run,) = report_of(analyze("exp", "--report", "json", *options))["runs"]
        return {f["rule"] for f in run["findings"]}

    assert fired("--select", "overfitting") == {"overfitting"}
    assert "overfitting" in fired() and "overfitting" not in fired("--ignore", "overfitting")


def test_a_role_given_by_hand_is_used() -> None:
    table(Path("exp/metrics.csv"), {"loss": falling, "held.x": lambda x: falling(x) + max(0, x - 20) * 0.05})
    result = analyze("exp", "--report", "json", "--role", "val_loss=held.x")
    (run,) = report_of(result)["runs"]
    assert {s["tag"]: s["role"] for s in run["series"]}["held.x"] == "val_loss"
    assert "overfitting" in {f["rule"] for f in run["findings"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [("val_los=x", "did you mean 'val_loss'"), ("val_loss", "is not ROLE=TAG"), ("=x", "is not ROLE=TAG")],
)
def test_a_mistaken_role_ends_with_2(text: str, message: str) -> None:
    table(Path("exp/metrics.csv"))
    result = analyze("exp", "--role", text)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


def test_a_broken_rule_ends_with_2_before_any_run_is_read() -> None:
    Path("own").mkdir()
    Path("own/x.yaml").write_text("id: x\ntitle: t\nseverty: warning\n")
    result = analyze("does-not-exist", "--rules", "own")
    assert result.exit_code == 2 and result.stdout == ""
    assert "own/x.yaml:3:1: unknown key 'severty' in a rule; did you mean 'severity'" in result.stderr
    assert "does-not-exist" not in result.stderr


def test_a_folder_of_rules_that_is_not_there_ends_with_2() -> None:
    table(Path("exp/metrics.csv"))
    result = analyze("exp", "--rules", "nowhere")
    assert result.exit_code == 2 and "nowhere" in result.stderr


# --- paths and commands ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["rules", "checkpoint", "explain", "run", "audit", "(paths)"])
def test_a_folder_with_a_commands_name_is_a_folder(word: str) -> None:
    overfitting(Path(word) / "metrics.csv")
    for arguments in ([word], [f"./{word}"], [word, "--report", "json"], ["--report", "json", word]):
        result = analyze(*arguments)
        assert result.exit_code == 0 and "overfitting" in result.stdout, (arguments, result.output)


@pytest.mark.parametrize("word", ["rules", "checkpoint", "run"])
def test_two_folders_are_two_folders_even_if_one_has_a_commands_name(word: str) -> None:
    overfitting(Path(word) / "metrics.csv")
    overfitting(Path("exp") / "metrics.csv")
    result = analyze(word, "exp", "--report", "json")
    assert sorted(run["name"] for run in report_of(result)["runs"]) == sorted([word, "exp"])


def test_commands_work_beside_folders_of_their_name() -> None:
    import torch

    overfitting(Path("rules/metrics.csv"))
    overfitting(Path("checkpoint/metrics.csv"))
    torch.save({"w": torch.ones(2, 2)}, "model.pt")
    listed = analyze("rules", "list")
    assert "overfitting " in listed.stdout and "steps" not in listed.stdout
    assert "FILES" in analyze("checkpoint", "--help").stdout
    inspected = analyze("checkpoint", "model.pt", "--json")
    assert [t["name"] for t in json.loads(inspected.stdout)["tensors"]] == ["w"]


def test_a_path_after_two_dashes_may_begin_with_one() -> None:
    overfitting(Path("-odd/metrics.csv"))
    assert "overfitting" in analyze("--", "-odd").stdout


# --- output ---------------------------------------------------------------------------------------


def test_json_goes_to_stdout_alone() -> None:
    overfitting(Path("exp/metrics.csv"))
    for arguments in (["--report", "json"], ["--report", "json", "--output", "-"]):
        result = analyze("exp", *arguments)
        assert report_of(result)["schema_version"] == 1 and result.stderr == ""


def test_with_nothing_read_json_is_still_json_and_the_message_is_on_stderr() -> None:
    result = analyze("nope", "--report", "json")
    assert result.exit_code == 3
    assert report_of(result)["runs"] == [] and "no such file" in result.stderr


def test_the_page_has_a_file_of_its_own_unless_told_otherwise() -> None:
    overfitting(Path("exp/metrics.csv"))
    result = analyze("exp", "--report", "html")
    assert result.stdout == "" and "report.html" in result.stderr
    assert Path("report.html").read_text().lstrip().lower().startswith("<!doctype html")
    assert analyze("exp", "--report", "html", "-o", "-").stdout.lstrip().lower().startswith("<!doctype html")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out/deep/res", ["out/deep/res.html", "out/deep/res.json", "out/deep/res.md"]),
        ("res.html", ["res.html", "res.json", "res.md"]),
        ("res.v1", ["res.v1.html", "res.v1.json", "res.v1.md"]),
        ("there", ["there/report.html", "there/report.json", "there/report.md"]),
    ],
)
def test_several_formats_share_a_stem(output: str, expected: list[str]) -> None:
    Path("there").mkdir()
    overfitting(Path("exp/metrics.csv"))
    formats = ["--report", "json", "--report", "html", "--report", "markdown", "--report", "terminal"]
    result = analyze("exp", *formats, "--output", output)
    assert result.exit_code == 0
    assert "overfitting" in result.stdout  # the terminal's goes to the terminal
    written = sorted(p.as_posix() for p in Path().rglob("*") if p.suffix in (".html", ".json", ".md"))
    assert written == expected
    assert all(name in result.stderr for name in expected)


def test_one_format_goes_to_the_very_file() -> None:
    overfitting(Path("exp/metrics.csv"))
    assert analyze("exp", "--report", "json", "--output", "result.txt").stdout == ""
    assert json.loads(Path("result.txt").read_text())["runs"]


@pytest.mark.parametrize("output", [[], ["--output", "-"]])
def test_two_formats_cannot_share_stdout(output: list[str]) -> None:
    overfitting(Path("exp/metrics.csv"))
    result = analyze("exp", "--report", "json", "--report", "csv", *output)
    assert result.exit_code == 2 and result.stdout == "" and "--output STEM" in result.stderr


def test_a_report_that_cannot_be_written_ends_with_2_and_the_reason() -> None:
    overfitting(Path("exp/metrics.csv"))
    Path("file").write_text("")
    result = analyze("exp", "--report", "json", "--output", "file/report.json")
    assert result.exit_code == 2 and "cannot be written" in result.stderr


@pytest.mark.parametrize("form", ["terminal", "html", "json", "markdown", "junit", "csv"])
def test_every_format_is_written_for_names_that_are_no_text(form: str) -> None:
    name = os.fsdecode(b"caf\xe9\n\x1b[2J")
    try:
        overfitting(Path(name) / "metrics.csv")
    except OSError:
        pytest.skip("the file system takes Unicode names only")
    assert analyze(name, "--report", form, "--output", "out").exit_code == 0
    text = Path("out").read_bytes().decode("utf-8")
    assert "\x1b" not in text and "caf" in text


def test_hostile_names_do_not_steer_the_terminal() -> None:
    overfitting(Path("\x1b[31mred\n[bold]") / "metrics.csv")
    Path("\x1b[31mbad.csv").write_bytes(b"\0\1" * 50)
    result = analyze(".")
    assert "\x1b" not in result.output and "[bold]" in result.stdout
    alone = analyze("\x1b[31mbad.csv")
    assert alone.exit_code == 3 and "\x1b" not in alone.output


# --- as a process ---------------------------------------------------------------------------------


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", ""), **environment}
    command = [sys.executable, "-m", "analyzer", *arguments]
    return subprocess.run(command, capture_output=True, env=env, timeout=120, check=False)


def test_no_colour_where_no_terminal_watches_and_ascii_where_nothing_else_can_be_shown() -> None:
    overfitting(Path("exp/metrics.csv"))
    done = process("exp", PYTHONIOENCODING="ascii", TERM="xterm-256color")
    assert done.returncode == 0 and b"\x1b" not in done.stdout and done.stdout.isascii()
    assert b"overfitting" in done.stdout and done.stderr == b""


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_on_a_terminal_unless_it_is_not_wanted(environment: dict[str, str], coloured: bool) -> None:
    pty = pytest.importorskip("pty")
    overfitting(Path("exp/metrics.csv"))
    leader, follower = pty.openpty()
    env = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment}
    command = [sys.executable, "-m", "analyzer", "exp", "-q"]
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.DEVNULL, env=env) as child:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        child.wait(timeout=120)
    os.close(leader)
    assert b"overfitting" in shown
    assert (b"\x1b[" in shown) is coloured


# --- rules ----------------------------------------------------------------------------------------


def test_a_rule_explains_itself() -> None:
    for arguments in (["explain", "overfitting"], ["rules", "show", "overfitting"]):
        result = analyze(*arguments)
        assert result.exit_code == 0 and "overfitting" in result.stdout
    unknown = analyze("explain", "overfiting")
    assert unknown.exit_code == 2 and "did you mean 'overfitting'" in unknown.stderr


def test_a_folder_of_rules_is_checked() -> None:
    Path("own").mkdir()
    Path("own/x.yaml").write_text("id: [\n")
    result = analyze("rules", "check", "own")
    assert result.exit_code == 2 and "own/x.yaml:" in result.stderr
    assert analyze("rules", "check").exit_code == 0


def test_the_examples_in_the_rules_hold() -> None:
    result = analyze("rules", "test")
    assert result.exit_code == 0 and " 0 failed" in result.stdout


def test_a_checkpoint_that_is_none_ends_with_3() -> None:
    Path("model.pt").write_text("text\n" * 50)
    result = analyze("checkpoint", "model.pt")
    assert result.exit_code == 3 and result.stdout == "" and "model.pt" in result.stderr


def test_a_checkpoint_is_not_printed_in_two_forms_at_once() -> None:
    Path("model.pt").write_text("text\n" * 50)
    result = analyze("checkpoint", "model.pt", "--json", "--csv")
    assert result.exit_code == 2 and result.stdout == ""
    assert "--json" in result.stderr and "--csv" in result.stderr


def test_events_and_tables_are_diagnosed_alike() -> None:
    overfitting_events(Path("events"))
    overfitting(Path("table/metrics.csv"))
    events(Path("fine"), tags=("Loss/train", "Loss/val"), steps=range(60))
    runs = {
        run["name"]: run for run in report_of(analyze("events", "table", "fine", "--report", "json"))["runs"]
    }
    rules = {name: {f["rule"] for f in run["findings"]} for name, run in runs.items()}
    assert "overfitting" in rules["events"] & rules["table"] and "overfitting" not in rules["fine"]


def test_a_pattern_that_no_tensor_matches_is_told(tmp_path: Path) -> None:
    import numpy as np

    np.savez("weights.npz", **{"layer.weight": np.ones((4, 4), dtype=np.float32)})
    assert "No tensor's name matches fc*." in analyze("checkpoint", "weights.npz", "--layer", "fc*").stdout
    assert "No tensor" not in analyze("checkpoint", "weights.npz", "--layer", "layer*").stdout


def test_a_broken_configuration_is_told_with_its_place() -> None:
    table(Path("exp/metrics.csv"))
    Path("exp/hparams.yaml").write_text("lr: [1, 2\n  foo: : :\n")
    (problem,) = report_of(analyze("exp", "--report", "json"))["runs"][0]["problems"]
    assert problem["message"].startswith("broken yaml: line 2, column 6: expected")


def test_a_broken_file_is_told_once() -> None:
    table(Path("exp/metrics.csv"))
    Path("exp/more").mkdir()
    Path("exp/more/train_history.json").write_text('{"0": {"accuracy": 0.7, "matrix": [[1, 2], [')
    report = report_of(analyze("exp", "--report", "json"))
    every = [*report["problems"], *(p for run in report["runs"] for p in run["problems"])]
    assert len([p for p in every if p["path"].endswith("train_history.json")]) == 1
