"""Activations measured by running a model: the user's own, or the graph that a file carries."""

from __future__ import annotations

import shutil
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


def export(net: nn.Module, file: str, dynamic: bool = True) -> None:
    axes = {"x": {0: "samples"}} if dynamic else None
    samples = 2 if dynamic else 7
    torch.onnx.export(
        net, (torch.zeros(samples, 1, 8, 8),), file, input_names=["x"], dynamic_axes=axes, dynamo=False
    )


EXPORTS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@EXPORTS
@pytest.mark.parametrize("dynamic", [True, False])
def test_an_onnx_graph_gives_what_the_model_gives(net: nn.Module, dynamic: bool) -> None:
    """Also where the model takes seven samples at a time, no more and no fewer."""
    export(net, "net.onnx", dynamic)
    report = measured("", "net.onnx")
    got, expected = by_layer(report), by_layer(measured())
    assert set(got) == {"conv", "act", "hidden", "squash", "head"}
    for name, stats in got.items():
        assert (stats.count, stats.units, stats.dead_units) == (
            expected[name].count, expected[name].units, expected[name].dead_units,
        )  # fmt: skip
        assert (stats.mean, stats.std) == pytest.approx((expected[name].mean, expected[name].std), rel=1e-4)
        assert stats.saturated == pytest.approx(expected[name].saturated)
    assert {"saturated-activations", "dead-relu"} <= {finding.rule for finding in report.findings}


@EXPORTS
def test_nan_in_an_onnx_graph_is_traced_to_its_layer(net: nn.Module) -> None:
    """Past layers that only move elements: the flattening in between adds none of its own."""
    with torch.no_grad():
        net.get_submodule("conv").bias[0] = float("nan")  # type: ignore[index]
    export(net, "net.onnx")
    found = by_layer(measured("", "net.onnx"))
    assert [name for name, stats in found.items() if stats.origin] == ["conv"]
    assert found["hidden"].nan


def test_an_onnx_graph_with_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = Path(__file__).parent / "checkpoint_files"
    for name in ("external.onnx", "external.onnx.data", "model.onnx"):
        shutil.copy(files / name, name)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.savez("x.npz", x=x)
    for name in ("external.onnx", "model.onnx"):
        (found,) = measured("", name, "x.npz").activations
        weight = np.load(files / "expected" / "model.onnx.npz")["weight"]
        assert found.mean == pytest.approx(float((x @ weight.T).mean()), rel=1e-5)
        assert (found.kind, found.count, found.units) == ("Gemm", 20, 4)


@EXPORTS
def test_what_keeps_an_onnx_graph_from_running_is_told(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(net, "net.onnx")
    with pytest.raises(AnalyzerError, match="ONNX keeps no example"):
        measured("", "net.onnx", None)
    np.savez("other.npz", y=np.zeros((2, 1, 8, 8)), z=np.zeros(2))
    with pytest.raises(AnalyzerError, match="the model takes x; the inputs have no x"):
        measured("", "net.onnx", "other.npz")
    np.save("flat.npy", np.zeros((4, 7)))
    with pytest.raises(AnalyzerError, match="its graph failed"):
        measured("", "net.onnx", "flat.npy")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "analyzer.activations.onnx_graphs", raising=False)
    with pytest.raises(AnalyzerError, match=r"needs onnxruntime: pip install"):
        measured("", "net.onnx")


def test_an_onnx_graph_is_not_run_without_being_asked(net: nn.Module) -> None:
    from test_architecture import loaded_by

    shutil.copy(Path(__file__).parent / "checkpoint_files" / "model.onnx", "model.onnx")
    assert not loaded_by(["checkpoint", "model.onnx"], Path.cwd()) & {"onnx", "onnxruntime", "torch"}


def test_nothing_is_run_without_being_asked(net: nn.Module, tmp_path: Path) -> None:
    Path("a_model.py").write_text("open('ran', 'w')")
    sys.modules.pop("a_model", None)
    assert not diagnose_checkpoint("net.pt", load_rules()).activations
    assert not Path("ran").exists()


def test_a_file_without_a_graph_is_told(net: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnalyzerError, match="only weights; name your model with --model"):
        measured("", "net.pt", None)
    assert "Traceback" not in capfd.readouterr().err, "torch is not asked to load it"
