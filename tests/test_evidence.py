"""Evidence in a checkpoint about gradients and activations, against networks that were really trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from click.testing import CliRunner
from torch import nn

from analyzer.checkpoints import evidence, open_checkpoint, preactivations, steps
from analyzer.checkpoints.regions import ArrayBlocks
from analyzer.checkpoints.statistics import layer_stats
from analyzer.cli import cli
from analyzer.features import compute
from analyzer.model import Checkpoint, Measurement, Missing, Run, TensorRef
from analyzer.report.layers import worst_first


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def saved(tmp_path: Path, **content: Any) -> Checkpoint:
    torch.save(content, tmp_path / "checkpoint.pt")
    return open_checkpoint(tmp_path / "checkpoint.pt")


def features(checkpoint: Checkpoint) -> Any:
    return compute(Run("run", "", checkpoints=(checkpoint,)), list(layer_stats(checkpoint)))


Optimizers = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def killed(tmp_path: Path, dead_for: int, make: Optimizers, steps_before: int = 60) -> Checkpoint:
    """A trained network of which three of eight hidden units were killed that many steps ago."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = make(net.parameters())
    for step in range(steps_before + dead_for):
        if step == steps_before:
            with torch.no_grad():
                net[0].bias[:3] = -1e4
        x = torch.randn(32, 6)
        optimizer.zero_grad()
        (net(x) - x[:, :3]).square().mean().backward()
        optimizer.step()
    return saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict())


@pytest.mark.parametrize("dead_for", [150, 400])
def test_the_step_at_which_units_died_is_told_by_the_two_moments(dead_for: int, tmp_path: Path) -> None:
    checkpoint = killed(tmp_path, dead_for, lambda p: torch.optim.AdamW(p, lr=1e-3))
    rows = {row.layer: row for row in steps.stopped_units(checkpoint, layer_stats(checkpoint))}
    row = rows["0.weight"]
    assert (row.stopped, row.never, row.units) == (3, 0, 8)
    assert row.steps_ago == pytest.approx(dead_for, rel=0.15)
    assert rows["2.weight"].stopped == 0
    found = features(checkpoint)
    assert found["optimizer.stopped_units"].value == pytest.approx(3 / 8)
    assert found["optimizer.stopped_units"].where == "0.weight"
    assert found["optimizer.stopped_steps_ago"].value == row.steps_ago


def test_units_that_died_just_now_or_never_are_not_stopped(tmp_path: Path) -> None:
    checkpoint = killed(tmp_path, 0, lambda p: torch.optim.Adam(p))
    assert [row.stopped for row in steps.stopped_units(checkpoint, layer_stats(checkpoint))] == [0, 0]
    assert isinstance(features(checkpoint)["optimizer.stopped_steps_ago"], Missing)


def test_units_that_never_had_a_gradient(tmp_path: Path) -> None:
    checkpoint = killed(tmp_path, 40, lambda p: torch.optim.Adam(p), steps_before=0)
    row = steps.stopped_units(checkpoint, layer_stats(checkpoint))[0]
    assert (row.stopped, row.never, row.steps_ago) == (3, 3, None)


def test_rows_of_a_matrix_without_bias_that_never_had_a_gradient_may_be_a_lookup_table(
    tmp_path: Path,
) -> None:
    """Positions beyond the longest sequence: a bare parameter, whose name tells nothing."""
    torch.manual_seed(0)
    place = nn.Parameter(torch.randn(16, 4))
    optimizer = torch.optim.AdamW([place], lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        (place[:6] - torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
    checkpoint = saved(tmp_path, model={"place": place.detach()}, optimizer=optimizer.state_dict())
    (row,) = steps.stopped_units(checkpoint, layer_stats(checkpoint))
    assert (row.units, row.stopped, row.never) == (16, 0, 0)


def test_the_clock_goes_on_once_the_first_moment_has_underflowed() -> None:
    """After thousands of steps only the second moment is left: it is compared with the living units'."""
    m, v = np.full((6, 4), 1e-3, np.float32), np.full((6, 4), 1e-5, np.float32)
    m[0] = 0
    v[0] *= 0.999**20_000
    checkpoint = moments(m, v)
    (row,) = steps.stopped_units(checkpoint, layer_stats(checkpoint))
    assert (row.stopped, row.never) == (1, 0)
    assert row.steps_ago == pytest.approx(20_000, rel=1e-3)


def moments(m: np.ndarray, v: np.ndarray) -> Checkpoint:
    refs = tuple(
        TensorRef("w", a.shape, a.dtype.name, a.nbytes, "optimizer", ArrayBlocks(a), slot)
        for a, slot in ((m, "exp_avg"), (v, "exp_avg_sq"))
    )
    return Checkpoint("c", "test", refs, optimizer={"beta1": 0.9, "beta2": 0.999})


def test_squares_that_underflow_are_no_sign_of_death() -> None:
    """Gradients of 1e-24 have squares that single precision does not hold."""
    m, v = np.full((10, 4), 1e-25, np.float32), np.zeros((10, 4), np.float32)
    assert steps.stopped_units(c := moments(m, v), layer_stats(c))[0].stopped == 0
    v[:3] = 1e-44
    assert steps.stopped_units(c := moments(m, v), layer_stats(c))[0].stopped == 0


def test_weight_decay_inside_adam_hides_dead_units_and_adamw_does_not(tmp_path: Path) -> None:
    coupled = killed(tmp_path, 300, lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1))
    assert steps.stopped_units(coupled, layer_stats(coupled))[0].stopped == 0
    decoupled = killed(tmp_path, 300, lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1))
    assert steps.stopped_units(decoupled, layer_stats(decoupled))[0].stopped == 3


def test_update_ratio_of_momentum_is_the_step_that_sgd_takes_next(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(20, 10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        optimizer.zero_grad()
        net(torch.randn(16, 20)).square().mean().backward()
        optimizer.step()
    before = net.weight.detach().clone()
    checkpoint = saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict())
    rows = {row.layer: row.ratio for row in evidence.update_ratio(checkpoint)}
    optimizer.zero_grad()
    net.weight.grad, net.bias.grad = torch.zeros(10, 20), torch.zeros(10)
    optimizer.step()  # 0.9 of the buffer, as no gradient is added
    moved = (net.weight.detach() - before).square().mean().sqrt() / 0.9 / before.square().mean().sqrt()
    assert rows["weight"] == pytest.approx(float(moved), rel=1e-4)


def test_gradient_scale_from_momentum_shows_which_layer_gets_less(tmp_path: Path) -> None:
    net = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(6)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    for _ in range(100):
        for i, parameter in enumerate(net.parameters()):
            parameter.grad = torch.full_like(parameter, 10.0**i)
        optimizer.step()
    checkpoint = saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict())
    rows = evidence.gradient_rms(checkpoint, layer_stats(checkpoint))
    assert [row.rms for row in rows] == pytest.approx([10.0**i for i in range(6)], rel=1e-3)
    assert evidence.first_last_ratio(rows) == pytest.approx(1e-4, rel=1e-3)


def test_a_head_that_joined_late_missed_steps(tmp_path: Path) -> None:
    net = nn.ModuleDict({"body": nn.Linear(4, 4), "late": nn.Linear(4, 2)})
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(20):
        optimizer.zero_grad()
        hidden = net["body"](torch.randn(8, 4))
        (net["late"](hidden) if step >= 15 else hidden).square().mean().backward()
        optimizer.step()
    checkpoint = saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict())
    rows = {row.layer: (row.steps, row.most) for row in steps.late_parameters(layer_stats(checkpoint))}
    assert rows == {"late.weight": (5, 20), "late.bias": (5, 20)}
    found = features(checkpoint)["optimizer.missed_steps"]
    assert found.value == pytest.approx(0.75)
    assert set(found.items) == {"late.weight", "late.bias"}


def scaled_training(tmp_path: Path, bad: set[int], scale: float) -> Checkpoint:
    """Twenty steps under a GradScaler; gradients overflow on the ``bad`` ones."""
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for step in range(20):
        optimizer.zero_grad()
        x = torch.full((8, 4), math.inf) if step in bad else torch.randn(8, 4)
        scaler.scale(net(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    return saved(
        tmp_path,
        model=net.state_dict(),
        optimizer=optimizer.state_dict(),
        scaler=scaler.state_dict(),
        global_step=20,
    )


def test_the_scaler_tells_of_skipped_steps(tmp_path: Path) -> None:
    checkpoint = scaled_training(tmp_path, {3, 4, 10}, 2.0**16)
    found = steps.loss_scale(checkpoint)
    assert found is not None
    assert (found.scale, found.halvings, found.clean_steps) == (2.0**13, 3, 9)
    assert steps.skipped_steps(checkpoint) == 3
    measured = features(checkpoint)
    assert measured["checkpoint.skipped_steps"].value == pytest.approx(0.15)
    assert measured["checkpoint.loss_scale"].value == 2.0**13


def test_a_difference_of_counters_says_nothing_without_a_scaler(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict(), global_step=50)
    assert steps.skipped_steps(checkpoint) is None
    assert isinstance(features(checkpoint)["checkpoint.skipped_steps"], Missing)


# --- activations -------------------------------------------------------------------------------------


def test_channel_activity_is_what_the_trained_network_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([0.0, 1.0, -1.0, -3.5, -30.0, 5.0]))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    for _ in range(200):
        x = torch.randn(256, 10)
        optimizer.zero_grad()
        (net(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        positive = (net[:2](torch.randn(20_000, 10)) > 0).double().mean(0).numpy()
    checkpoint = saved(tmp_path, model=net.state_dict())
    (row,) = preactivations.channel_activity(checkpoint)
    assert row.layer == "1"
    assert row.active == pytest.approx(positive, abs=0.02)
    assert np.all(positive <= row.bound)
    assert features(checkpoint)["norm.never_active"].value == pytest.approx(1 / 6)


def test_the_bound_holds_for_the_distribution_that_attains_it() -> None:
    """Two points, the upper one just above zero: Cantelli's bound is reached there."""
    gamma, beta = np.ones(3), np.array([-0.5, -2.0, -9.0])
    row = preactivations._activity("bn", gamma, beta, np.full(3, 1e9))
    upper = 1 / (1 + beta**2)  # P(X = 0+) for the extremal law of mean beta and variance 1
    assert row.bound == pytest.approx(upper)
    assert row.active == pytest.approx(scipy.stats.norm.cdf(beta), rel=1e-12)


def test_channels_without_variance_are_constants(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-0.5, 0.5, 0.0]))
        norm.running_var.zero_()
    (row,) = preactivations.channel_activity(saved(tmp_path, model=nn.ModuleDict({"bn": norm}).state_dict()))
    assert row.active.tolist() == [0, 1, 0]


def test_certificates_hold_for_every_input_and_miss_none_that_is_attained(tmp_path: Path) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(12, 40)
    with torch.no_grad():
        layer.bias.mul_(12)
        layer.weight[:4] = -layer.weight[:4].abs()
        layer.bias[:4] = -0.01
    checkpoint = saved(tmp_path, model={"fc.weight": layer.weight, "fc.bias": layer.bias})
    (row,) = preactivations.certificates(checkpoint)
    corners = torch.tensor([[k >> i & 1 for i in range(12)] for k in range(1 << 12)], dtype=torch.float32)
    with torch.no_grad():
        unit, symmetric = layer(corners), layer(2 * corners - 1)
    assert row.never == int((unit.max(0).values <= 0).sum())
    assert row.always == int((unit.min(0).values >= 0).sum())
    assert row.pinned == int(((symmetric.min(0).values >= 4) | (symmetric.max(0).values <= -4)).sum())
    assert row.shut == 4
    assert 0 < row.never < 40
    assert features(checkpoint)["weights.shut_units"].value == pytest.approx(0.1)


def test_fresh_layers_have_no_units_that_nothing_opens(tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 32))
    found = features(saved(tmp_path, model=net.state_dict()))
    for name in ("weights.shut_units", "weights.closed_units", "weights.pinned_units"):
        assert isinstance(found[name], Measurement)
        assert found[name].value == 0


@pytest.mark.parametrize("living", [True, False])
def test_units_whose_gradient_goes_on_are_not_shut(living: bool, tmp_path: Path) -> None:
    """Behind a softplus a layer of negative weights learns: only a ReLU would shut it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.Softplus() if living else nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    with torch.no_grad():
        net[0].weight.copy_(-net[0].weight.abs())
        net[0].bias.fill_(-0.1)
    for step in range(150 if living else 300):
        x = torch.rand(64, 12) if living or step > 50 else -torch.rand(64, 12)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    found = features(saved(tmp_path, model=net.state_dict(), optimizer=optimizer.state_dict()))
    assert (found["weights.shut_units"].value > 0.5) != living


PATTERNS = {
    "causal mask": torch.triu(torch.full((16, 16), -math.inf), 1),
    "mask of large numbers": torch.triu(torch.full((1, 1, 16, 16), -1e9), 1),
    "identity": torch.eye(32, 16),
    "zeros to start from": torch.zeros(16, 16),
    "observer": torch.tensor(math.inf),
}
PATTERN_NAMES = {"observer": "fake_quant.min_val"}


@pytest.mark.parametrize("kind", PATTERNS)
def test_masks_and_what_training_starts_from_are_no_faults(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = PATTERN_NAMES.get(kind, "block.thing")
    found = features(saved(tmp_path, model={"fc.weight": nn.Linear(16, 16).weight, name: PATTERNS[kind]}))
    assert found["weights.nonfinite"].value == 0
    assert found["weights.dead_units"].value == 0
    assert found["weights.scale_max"].value < 2
    assert found["weights.abs_max"].value < 1


def test_a_weight_of_infinities_is_no_mask(tmp_path: Path) -> None:
    weights = {"a.weight": torch.full((16, 16), math.inf), "b.weight": torch.randn(16, 16)}
    weights["b.weight"][0, :2] = -math.inf
    weights["a.bias"] = torch.full((16,), math.inf)
    assert features(saved(tmp_path, model=weights))["weights.nonfinite"].value == 256 + 2 + 16


def test_a_batch_norm_before_an_addition_need_not_be_positive(tmp_path: Path) -> None:
    """The last of a residual block starts at a scale of zero; those before a ReLU are looked at."""
    block = nn.ModuleDict({name: nn.BatchNorm2d(8) for name in ("bn1", "bn2")})
    with torch.no_grad():
        block["bn1"].bias[:2] = -9
        block["bn2"].weight.fill_(1e-3)
        block["bn2"].bias.fill_(-0.1)
    net = nn.ModuleDict({"layer1": block, "downsample": nn.Sequential(nn.BatchNorm2d(8))})
    nn.init.constant_(net["downsample"][0].bias, -9)
    found = features(saved(tmp_path, model=net.state_dict()))["weights.inactive_channels"]
    assert (found.value, found.where) == (2 / 8, "layer1.bn1")


def test_a_broken_batch_norm_says_nothing_of_its_channels(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(4)
    nn.init.constant_(norm.weight, math.nan)
    checkpoint = saved(tmp_path, model=nn.ModuleDict({"bn": norm}).state_dict())
    assert preactivations.channel_activity(checkpoint) == ()


def test_a_lone_output_unit_is_no_share_of_a_layer(tmp_path: Path) -> None:
    weight, bias = -torch.rand(1, 32), torch.tensor([-1.0])
    found = features(saved(tmp_path, model={"head.weight": weight, "head.bias": bias}))
    assert isinstance(found["weights.shut_units"], Missing)


def test_scales_of_layer_norms(tmp_path: Path) -> None:
    net = nn.ModuleDict({"ln_1": nn.LayerNorm(8), "bn_norm": nn.BatchNorm1d(8), "fc": nn.Linear(8, 8)})
    with torch.no_grad():
        net["ln_1"].weight[:2] = 1e-6
        net["ln_1"].weight[5] = -3.0
    checkpoint = saved(tmp_path, model=net.state_dict())
    (row,) = preactivations.norm_scales(checkpoint)
    assert (row.layer, row.channels, row.median, row.largest, row.off) == ("ln_1", 8, 1.0, 3.0, 2)
    assert features(checkpoint)["norm.off_channels"].value == pytest.approx(0.25)


def logits_of(query: torch.Tensor, key: torch.Tensor, heads: int) -> float:
    """Root mean square logit of the strongest head, over many random inputs."""
    torch.manual_seed(9)
    x, y = torch.randn(400, query.shape[1]), torch.randn(400, key.shape[1])
    q, k = (x @ query.T).unflatten(1, (heads, -1)), (y @ key.T).unflatten(1, (heads, -1))
    logits = torch.einsum("ahd,bhd->hab", q, k) / math.sqrt(q.shape[-1])
    return float(logits.square().mean((1, 2)).sqrt().max())


def test_attention_logits_of_a_fused_projection(tmp_path: Path) -> None:
    torch.manual_seed(3)
    attention = nn.MultiheadAttention(32, 4, bias=False)
    with torch.no_grad():
        attention.in_proj_weight[:8] *= 20  # the first head's queries
    weight = attention.in_proj_weight.detach()
    checkpoint = saved(tmp_path, model={"attn.in_proj_weight": weight}, hyper_parameters={"nhead": 4})
    (row,) = preactivations.attention_logits(checkpoint)
    assert (row.layer, row.heads, row.assumed) == ("attn.in_proj_weight", 4, False)
    assert row.logits == pytest.approx(logits_of(weight[:32], weight[32:64], 4), rel=0.2)
    assert features(checkpoint)["attention.logit_scale"].value == row.logits


def test_attention_logits_of_separate_transposed_and_grouped_projections(tmp_path: Path) -> None:
    torch.manual_seed(4)
    q, k, shared = torch.randn(64, 48), torch.randn(64, 48), torch.randn(16, 48)
    expected = logits_of(q, k, 4)
    fused = torch.cat([q[:, :48][:48], k[:48], k[:48]]).T.contiguous()  # [in, 3 out], as GPT-2 keeps it
    checkpoint = saved(
        tmp_path,
        model={
            "a.q_proj.weight": q, "a.k_proj.weight": k,
            "b.self.query.weight": q, "b.self.key.weight": k,
            "c.wq.weight": q, "c.wk.weight": shared,
            "d.c_attn.weight": fused,
            "unrelated.weight": torch.randn(48, 16),
        },
        config={"num_attention_heads": 4},
    )  # fmt: skip
    rows = {row.layer: row.logits for row in preactivations.attention_logits(checkpoint)}
    assert rows["a.q_proj.weight"] == pytest.approx(expected, rel=0.2)
    assert rows["b.self.query.weight"] == rows["a.q_proj.weight"]
    assert rows["c.wq.weight"] == pytest.approx(logits_of(q, shared.repeat(4, 1), 4), rel=0.2)
    assert rows["d.c_attn.weight"] == pytest.approx(logits_of(q[:48], k[:48], 4), rel=0.2)
    assert len(rows) == 4


def test_biases_of_queries_and_keys_count(tmp_path: Path) -> None:
    weight, bias = torch.zeros(48, 16), torch.full((48,), 5.0)
    checkpoint = saved(tmp_path, model={"attn.qkv.weight": weight, "attn.qkv.bias": bias})
    (row,) = preactivations.attention_logits(checkpoint)
    assert row.assumed
    assert row.logits == pytest.approx(25 * 16 / 4)


def test_freshly_made_attention_has_logits_of_about_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(128, 8)
    found = features(saved(tmp_path, model=layer.state_dict(), hyper_parameters={"nhead": 8}))
    assert 0.1 < found["attention.logit_scale"].value < 3


def test_verbose_output_lists_the_evidence_with_its_caveats(tmp_path: Path) -> None:
    killed(tmp_path, 200, lambda p: torch.optim.AdamW(p, lr=1e-3))
    file = str(tmp_path / "checkpoint.pt")
    text = CliRunner().invoke(cli, ["checkpoint", "-v", file], env={"COLUMNS": "200"}).stdout
    assert "largest share of units whose gradient stopped: 0.375 (0.weight)" in text
    assert "after clipping" in text
    brief = CliRunner().invoke(cli, ["checkpoint", file], env={"COLUMNS": "200"}).stdout
    assert "evidence:" not in brief


# --- what a reader sees first --------------------------------------------------------------------------


def test_counters_and_zero_biases_do_not_come_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    nn.init.zeros_(net[0].bias)
    nn.init.constant_(net[1].running_var, 700)
    nn.init.constant_(net[1].num_batches_tracked, 10_000)
    layers = list(layer_stats(saved(tmp_path, model=net.state_dict())))
    names = [layer.name for layer in worst_first(layers)]
    assert names[:2] == ["1.weight", "0.weight"]
    assert set(names[-3:]) == {"1.num_batches_tracked", "1.running_var", "1.running_mean"}


def test_a_file_without_tensors_is_not_shown_as_a_table(tmp_path: Path) -> None:
    torch.save({"base_lrs": [0.1], "last_epoch": 7}, tmp_path / "scheduler.pt")
    text = CliRunner().invoke(cli, ["checkpoint", str(tmp_path / "scheduler.pt")]).output
    assert "0 tensors" in text and "Nothing in it can be judged." in text
    assert "tensor shape" not in text and "parameters and buffers" not in text
