"""Activations measured by running a model: the user's own, or the graph that a file carries."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analyzer.errors import AnalyzerError
from analyzer.model import ActivationStats, RunReport
from analyzer.pipeline import Forward, diagnose_checkpoint
from analyzer.rulebook import load_rules

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.act = nn.ReLU()
        self.flat = nn.Flatten()
        self.hidden = nn.Linear(8 * 36, 16)
        self.squash = nn.Tanh()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.drop(self.squash(self.hidden(self.flat(self.act(self.conv(x)))))))

net = Net()
broken = lambda: 1 / 0
number = lambda: 3
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network with 6 of 8 dead channels, saturated tanh, and its factory in ``a_model``."""
    (tmp_path / "a_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_model", raising=False)
    import a_model  # type: ignore[import-not-found]

    torch.manual_seed(0)
    made: nn.Module = a_model.Net()
    with torch.no_grad():
        made.get_submodule("conv").bias[:6] = -100.0  # type: ignore[index]
        made.get_submodule("hidden").weight *= 200  # type: ignore[operator]
    torch.save(made.state_dict(), tmp_path / "net.pt")
    np.savez(tmp_path / "batch.npz", x=np.random.default_rng(0).normal(size=(70, 1, 8, 8)))
    return made.eval()


def measured(model: str = "a_model:Net", file: str = "net.pt", inputs: str | None = "batch.npz") -> RunReport:
    forward = Forward(Path(inputs) if inputs else None, model)
    return diagnose_checkpoint(file, load_rules(), forward=forward)


def by_layer(report: RunReport) -> dict[str, ActivationStats]:
    return {found.layer: found for found in report.activations}


def test_every_layer_agrees_with_a_plain_forward_pass(net: nn.Module) -> None:
    found = by_layer(measured())
    assert list(found) == ["conv", "act", "flat", "hidden", "squash", "drop", "head"]
    x = torch.from_numpy(np.load("batch.npz")["x"]).float()
    with torch.no_grad():
        outputs = {}
        for name, module in net.named_children():
            x = outputs[name] = module(x)
    for name, output in outputs.items():
        stats, wide = found[name], output.double()
        assert stats.count == output.numel()
        assert stats.mean == pytest.approx(float(wide.mean()), abs=1e-6)
        assert stats.std == pytest.approx(float(wide.std(correction=0)), rel=1e-6)
        assert (stats.min, stats.max) == pytest.approx((float(wide.min()), float(wide.max())))
        assert stats.zeros == pytest.approx(float((output == 0).float().mean()))
    assert (found["act"].dead_units, found["act"].units) == (6, 8)
    assert found["squash"].saturated == pytest.approx(float((outputs["squash"].abs() >= 0.98).float().mean()))
    assert found["head"].saturated is None


def test_what_is_measured_reaches_the_rules(net: nn.Module) -> None:
    fired = {finding.rule for finding in measured().findings}
    assert {"saturated-activations", "dead-relu"} <= fired


def test_a_healthy_model_stays_silent(net: nn.Module) -> None:
    torch.manual_seed(1)
    torch.save(sys.modules["a_model"].Net().state_dict(), "net.pt")
    assert not {"saturated-activations", "dead-relu"} & {finding.rule for finding in measured().findings}


def test_the_first_layer_where_nan_appears_is_the_origin(net: nn.Module) -> None:
    state = net.state_dict()
    state["hidden.weight"][0, 0] = float("nan")
    torch.save(state, "net.pt")
    found = by_layer(measured())
    assert [name for name, stats in found.items() if stats.origin] == ["hidden"]
    assert found["head"].nan > 0 and found["conv"].nan == 0


def test_weights_that_do_not_fit_are_told(net: nn.Module) -> None:
    state = net.state_dict()
    del state["head.bias"]
    state["extra"] = torch.ones(2)
    state["hidden.bias"] = torch.ones(3)
    torch.save(state, "net.pt")
    told = [p.message for p in measured().problems if p.kind == "unfit"]
    assert [text.partition(": ")[2] for text in told] == [
        "1 not in the checkpoint: head.bias", "1 not in the model: extra", "1 of another shape: hidden.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("a_model", "expected package.module:factory"),
        ("no_such_module:Net", "No module named 'no_such_module'"),
        ("a_model:Nope", "has no attribute 'Nope'"),
        ("a_model:broken", "ZeroDivisionError"),
        ("a_model:number", "gives a int"),
    ],
)
def test_a_factory_that_fails_is_told_in_its_own_words(net: nn.Module, model: str, message: str) -> None:
    with pytest.raises(AnalyzerError, match=message):
        measured(model)


def test_inputs_that_do_not_fit_are_told(net: nn.Module) -> None:
    np.save("flat.npy", np.zeros((4, 7)))
    with pytest.raises(AnalyzerError, match="failed on these inputs"):
        measured(inputs="flat.npy")
    with pytest.raises(AnalyzerError, match="needs --inputs"):
        measured(inputs=None)
    Path("words.csv").write_text("a,b\nx,y\n")
    with pytest.raises(AnalyzerError, match="not a table of numbers"):
        measured(inputs="words.csv")


@pytest.mark.parametrize("kind", ["pt", "npy"])
def test_inputs_come_in_several_formats(net: nn.Module, kind: str) -> None:
    x = np.load("batch.npz")["x"]
    if kind == "pt":
        torch.save(torch.from_numpy(x), "batch.pt")
    else:
        np.save("batch.npy", x)
    assert by_layer(measured(inputs=f"batch.{kind}")) == by_layer(measured())


@pytest.mark.parametrize("kind", ["traced", "scripted", "exported"])
def test_a_file_that_carries_its_graph_is_run_on_request(net: nn.Module, kind: str) -> None:
    x = torch.from_numpy(np.load("batch.npz")["x"]).float()
    file = "graph.pt2" if kind == "exported" else "graph.pt"
    if kind == "exported":
        torch.export.save(torch.export.export(net, (x,)), file)
    elif kind == "traced":
        torch.jit.trace(net, x).save(file)
    else:
        torch.jit.script(net).save(file)
    report = measured("", file, None if kind == "exported" else "batch.npz")
    tanh = next(found for found in report.activations if found.kind == "tanh")
    whole = by_layer(measured())["squash"]
    assert tanh.count == whole.count and tanh.saturated == pytest.approx(whole.saturated)
    assert "saturated-activations" in {finding.rule for finding in report.findings}
    assert {"conv", "hidden", "head"} <= set(by_layer(report))


def test_nothing_is_run_without_being_asked(net: nn.Module, tmp_path: Path) -> None:
    Path("a_model.py").write_text("open('ran', 'w')")
    sys.modules.pop("a_model", None)
    assert not diagnose_checkpoint("net.pt", load_rules()).activations
    assert not Path("ran").exists()


def test_a_file_without_a_graph_is_told(net: nn.Module) -> None:
    Path("text.pt").write_text("nothing")
    with pytest.raises(AnalyzerError):
        measured("", "net.pt")
