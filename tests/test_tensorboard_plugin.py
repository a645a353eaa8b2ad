"""The tab in TensorBoard, against a running TensorBoard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from small_runs import events, overfitting

pytest.importorskip("tensorboard")
from analyzer.tensorboard_plugin import log_folders


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that shows one overfitting run with a hostile name."""
    logs = tmp_path_factory.mktemp("logs")
    run = logs / "<img src=x onerror=alert(1)>"
    overfitting(run / "metrics.csv")
    events(logs / "other")
    code = "import sys; from tensorboard.main import run_main; sys.argv[0] = 'tensorboard'; run_main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--logdir", str(logs), "--port", "0", "--host", "127.0.0.1", "--load_fast", "false"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"at (http://\S+?)/? ", line):
                break
        else:
            pytest.fail("TensorBoard did not start:\n" + "".join(said))
        try:
            yield found[1]
        finally:
            process.kill()  # asked to end, it was once seen to go on serving


def got(url: str) -> tuple[str, dict[str, str]]:
    with urlopen(url, timeout=60) as answer:
        return answer.read().decode(), dict(answer.headers)


def test_tensorboard_offers_the_tab(served: str) -> None:
    listing = json.loads(got(f"{served}/data/plugins_listing")[0])
    assert listing["analyzer"]["tab_name"] == "Diagnosis"
    assert listing["analyzer"]["enabled"] is True
    module, headers = got(f"{served}/data/plugin/analyzer/index.js")
    assert "export async function render" in module and "javascript" in headers["Content-Type"]


def test_the_tab_shows_the_report_of_the_runs(served: str) -> None:
    page, headers = got(f"{served}/data/plugin/analyzer/report")
    assert "overfitting" in page and "<img src=x" not in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_report_is_only_read(served: str) -> None:
    with pytest.raises(HTTPError, match="405"):
        urlopen(Request(f"{served}/data/plugin/analyzer/report", data=b"x", method="POST"), timeout=60)


def test_folders_of_both_flags_are_taken(tmp_path: Path) -> None:
    def folders(logdir: str, spec: str) -> list[str]:
        return log_folders(SimpleNamespace(logdir=logdir, flags=SimpleNamespace(logdir_spec=spec)))  # type: ignore[arg-type]

    assert folders("runs", "") == ["runs"]
    assert folders("", f"a:{tmp_path},{tmp_path}") == [str(tmp_path), str(tmp_path)]
    assert folders("", "") == []
