"""Checkpoint containers: every tensor as the real reader gives it, and nothing from hostile files."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import hostile_files as forge
from hostile import hostile_pickles

from analyzer.checkpoints import container_for, containers, evidence, open_checkpoint
from analyzer.checkpoints.changes import difference
from analyzer.checkpoints.regions import DTYPES, Region, StoredBlocks
from analyzer.checkpoints.statistics import layer_stats
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, TensorRef

torch = pytest.importorskip("torch")
nn = torch.nn


def values(ref: TensorRef, limit: int = 1 << 20) -> np.ndarray:
    blocks = list(ref.blocks(limit))
    return (np.concatenate(blocks) if blocks else np.zeros(0)).reshape(ref.shape)


def numpy_of(tensor: Any) -> np.ndarray:
    """Torch's own values, what numpy lacks widened."""
    if tensor.dtype in (torch.bfloat16, torch.complex32) or "float8" in str(tensor.dtype):
        tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    return tensor.detach().numpy()


def group(checkpoint: Checkpoint, name: str) -> dict[str, TensorRef]:
    return {ref.name: ref for ref in checkpoint.tensors if ref.group == name}


def assert_same(ref: TensorRef, tensor: Any) -> None:
    assert ref.shape == tuple(tensor.shape)
    assert ref.dtype == str(tensor.dtype).removeprefix("torch.")
    assert ref.nbytes == tensor.numel() * tensor.element_size()
    np.testing.assert_array_equal(values(ref), numpy_of(tensor))


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A little of everything: convolution, batch norm, tied weights, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("scratch", torch.ones(2), persistent=False)

    def forward(self, x: Any) -> Any:
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return (
            self.head(torch.cat([h, h[:, :1]], 1)) + self.embed(torch.zeros(len(x), dtype=torch.long)).sum()
        )


def trained(make: Callable[[Any], Any], steps: int = 3) -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = Net()
    optimizer = make(net.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 3, 6, 6)).square().mean().backward()
        optimizer.step()
    return net, optimizer


WRITERS: dict[str, dict[str, Any]] = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
DTYPE_NAMES = [
    name
    for name in DTYPES
    if hasattr(torch, name) and name not in {"uint16", "uint32", "uint64", "float8_e8m0fnu"}
]


@pytest.fixture(params=WRITERS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[object], Path]:
    def write(value: object, name: str = "c.pt") -> Path:
        torch.save(value, tmp_path / name, **WRITERS[request.param])
        return tmp_path / name

    return write


# --- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_element_type_as_torch_reads_it(dtype: str, save: Callable[[object], Path]) -> None:
    raw = (
        torch.arange(256, dtype=torch.uint8) if "8" in dtype and "128" not in dtype else torch.randn(256) * 3
    )
    tensor = raw.view(getattr(torch, dtype)) if "float8" in dtype else raw.to(getattr(torch, dtype))
    path = save({"w": tensor.reshape(16, 16)})
    try:
        oracle = torch.load(path, weights_only=True)["w"]
    except AttributeError:  # torch writes newer types in the legacy format but cannot read them
        oracle = tensor.reshape(16, 16)
    assert_same(group(open_checkpoint(path), "model")["w"], oracle)


def test_views_are_read_in_row_major_order(save: Callable[[object], Path]) -> None:
    base = torch.arange(120.0).reshape(4, 5, 6)
    state = {
        "whole": base,
        "transposed": base.transpose(0, 2),
        "sliced": base[1:, ::2, 3:],
        "expanded": base[0, 0].expand(3, 6),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }
    path = save(state)
    found = group(open_checkpoint(path), "model")
    assert list(found) == list(state)
    for name, tensor in torch.load(path, weights_only=True).items():
        assert_same(found[name], tensor)
        np.testing.assert_array_equal(values(found[name], limit=16), tensor.numpy())


def test_a_large_view_is_mapped_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.checkpoints.regions.WHOLE_SPAN", 1_000)
    tensor = torch.randn(300, 200)
    torch.save({"w": tensor.t()}, tmp_path / "c.pt")
    np.testing.assert_array_equal(values(open_checkpoint(tmp_path / "c.pt").tensors[0]), tensor.t().numpy())


def test_blocks_keep_to_their_limit(save: Callable[[object], Path]) -> None:
    path = save({"a": torch.randn(1_000), "b": torch.randn(1_000).bfloat16(), "c": torch.randn(40, 25).t()})
    for ref in open_checkpoint(path).tensors:
        blocks = list(ref.blocks(400))
        assert len(blocks) >= 10
        assert max(block.nbytes for block in blocks) <= 400
        assert all(block.ndim == 1 for block in blocks)


def test_tied_weights_keep_both_names_and_one_place(save: Callable[[object], Path]) -> None:
    found = group(open_checkpoint(save(Net().state_dict())), "model")
    assert found["embed.weight"].blocks == found["head.weight"].blocks
    assert found["embed.weight"].blocks != found["conv.weight"].blocks


def test_big_endian_storages(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    forge.torch_zip(path, forge.torch_pickle(), data=np.arange(4, dtype=">f4").tobytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(values(open_checkpoint(path).tensors[0]), [0, 1, 2, 3])


def test_a_compressed_archive_is_streamed(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5_000), "b": torch.randn(70, 30).t(), "c": torch.zeros(100_000)}
    torch.save(tensors, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as old,
        zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    for name, ref in group(open_checkpoint(tmp_path / "c.pt"), "model").items():
        np.testing.assert_array_equal(values(ref, 1 << 12), tensors[name].numpy())


@pytest.mark.parametrize(
    "dtype", [n for n in DTYPE_NAMES if n not in {"complex128", "complex32"} and "fnuz" not in n]
)
def test_safetensors(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    raw = torch.randn(12, 10)
    path = tmp_path / "m.safetensors"
    save_file({"w": raw.to(getattr(torch, dtype)), "e": torch.zeros(0)}, path, metadata={"format": "pt"})
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert checkpoint.metadata["format"] == "pt"
    assert_same(group(checkpoint, "model")["w"], load_file(path)["w"])


def test_safetensors_come_in_depth_order(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({f"layer.{i}.weight": torch.ones(1) for i in range(12)}, tmp_path / "m.safetensors")
    names = [ref.name for ref in open_checkpoint(tmp_path / "m.safetensors").tensors]
    assert names == [f"layer.{i}.weight" for i in range(12)]


# --- finding the state -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapper", ["", "state_dict", "model", "model_state_dict", "net", "params", "module", "my_net"]
)
def test_the_state_dict_wherever_it_is(wrapper: str, save: Callable[[object], Path]) -> None:
    state = Net().state_dict()
    checkpoint = open_checkpoint(save({"epoch": 7, wrapper: state} if wrapper else state))
    found = group(checkpoint, "model")
    prefix = "my_net." if wrapper == "my_net" else ""
    assert list(found) == [prefix + name for name in state]
    for name, tensor in state.items():
        assert_same(found[prefix + name], tensor)
    assert checkpoint.epoch == (7 if wrapper else None)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefixes_common_to_all_names_are_folded(prefix: str, save: Callable[[object], Path]) -> None:
    state = Net().state_dict()
    path = save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}})
    assert list(group(open_checkpoint(path), "model")) == list(state)


def test_averaged_weights_are_a_group_of_their_own(save: Callable[[object], Path]) -> None:
    net, average = Net(), Net()
    checkpoint = open_checkpoint(save({"model": net.state_dict(), "ema": average.state_dict()}))
    for name, module in (("model", net), ("ema", average)):
        for key, tensor in module.state_dict().items():
            assert_same(group(checkpoint, name)[key], tensor)


def test_an_average_within_the_state_dict_is_told_apart(save: Callable[[object], Path]) -> None:
    state = {"conv.weight": torch.ones(2), "model_ema.convweight": torch.zeros(2)}
    checkpoint = open_checkpoint(save({"state_dict": state}))
    assert list(group(checkpoint, "model")) == ["conv.weight"]
    assert len(group(checkpoint, "ema")) == 1


def test_two_networks_keep_their_keys(save: Callable[[object], Path]) -> None:
    checkpoint = open_checkpoint(
        save({"netG": nn.Linear(2, 3).state_dict(), "netD": nn.Linear(3, 1).state_dict()})
    )
    assert list(group(checkpoint, "model")) == ["netG.weight", "netG.bias", "netD.weight", "netD.bias"]


def test_a_whole_pickled_module(save: Callable[[object], Path]) -> None:
    net = Net()
    found = group(open_checkpoint(save(net)), "model")
    assert found.keys() == net.state_dict().keys()  # without the buffer that is not persistent
    for name, tensor in net.state_dict().items():
        assert_same(found[name], tensor)


def test_a_torchscript_archive(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.jit.script(net).save(str(tmp_path / "c.pt"))
    found = group(open_checkpoint(tmp_path / "c.pt"), "model")
    assert found.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(values(found[name]), tensor.numpy())


OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "adam": (lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-7), "adam"),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1), "adam"),
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "sgd"),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01), "rmsprop"),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.01), "adagrad"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_carries_the_parameters_names(name: str, save: Callable[[object], Path]) -> None:
    make, kind = OPTIMIZERS[name]
    net, optimizer = trained(make)
    path = save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "global_step": 3})
    checkpoint = open_checkpoint(path)
    slots = {(ref.name, ref.slot): ref for ref in checkpoint.tensors if ref.group == "optimizer"}
    for (parameter, tensor), state in zip(net.named_parameters(), optimizer.state.values(), strict=True):
        assert any(owner == parameter for owner, _ in slots)
        for slot, value in state.items():
            if isinstance(value, torch.Tensor):
                assert_same(slots[parameter, slot], value)
        assert tensor.shape == net.get_parameter(parameter).shape
    assert checkpoint.optimizer["kind"] == kind
    assert checkpoint.optimizer["lr"] == optimizer.param_groups[0]["lr"]
    assert checkpoint.metadata["optimizer_names_known"] is True
    assert checkpoint.step == 3
    if name != "sgd":
        assert checkpoint.optimizer["step"] == 3 or name == "rmsprop"


def test_betas_have_names_of_their_own(save: Callable[[object], Path]) -> None:
    net, optimizer = trained(OPTIMIZERS["adam"][0])
    settings = open_checkpoint(
        save({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    ).optimizer
    assert (settings["beta1"], settings["beta2"], settings["eps"]) == (0.8, 0.95, 1e-7)


def test_weight_decay_groups_are_told_apart_by_shape(save: Callable[[object], Path]) -> None:
    def by_shape(parameters: Any) -> Any:
        every = list(parameters)
        groups = [[p for p in every if p.ndim > 1], [p for p in every if p.ndim < 2]]
        return torch.optim.AdamW([{"params": members} for members in groups])

    net, optimizer = trained(by_shape)
    checkpoint = open_checkpoint(save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}))
    found = {ref.name: ref for ref in checkpoint.tensors if ref.slot == "exp_avg"}
    for name, parameter in net.named_parameters():
        assert_same(found[name], optimizer.state[parameter]["exp_avg"])


def test_optimizer_state_alone_goes_by_index(save: Callable[[object], Path]) -> None:
    _, optimizer = trained(OPTIMIZERS["adam"][0])
    checkpoint = open_checkpoint(save(optimizer.state_dict()))
    assert {ref.name for ref in checkpoint.tensors} == {"0", "1", "2", "3", "4"}
    assert checkpoint.metadata["optimizer_names_known"] is False


def test_a_frozen_parameter_has_no_state(save: Callable[[object], Path]) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    checkpoint = open_checkpoint(save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}))
    assert evidence.without_state(checkpoint) == ("0.weight",)


def test_a_lightning_checkpoint(save: Callable[[object], Path]) -> None:
    net, optimizer = trained(OPTIMIZERS["adam"][0])
    value = {
        "epoch": 4,
        "global_step": 120,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": net.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.02], "last_epoch": 4, "_step_count": 5, "_last_lr": [0.01]}],
        "MixedPrecision": {
            "scale": 1024.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "_growth_tracker": 7,
        },
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 32, "act": "relu", "opt": {"lr": 0.02}, "sizes": [1, 2]},
    }
    checkpoint = open_checkpoint(save(value))
    assert (checkpoint.epoch, checkpoint.step) == (4, 120)
    assert checkpoint.hyperparameters == {"width": 32, "act": "relu", "opt.lr": 0.02, "sizes": "1, 2"}
    assert checkpoint.metadata["pytorch-lightning_version"] == "2.6.0"
    assert checkpoint.metadata["loss_scale"] == 1024.0
    assert checkpoint.metadata["loss_scale_growth_tracker"] == 7
    assert list(group(checkpoint, "model")) == list(net.state_dict())
    assert ("embed.weight", "exp_avg_sq") in {(r.name, r.slot) for r in checkpoint.tensors}
    assert [r.shape for r in checkpoint.tensors if r.group == "other"] == [()]


def test_a_namespace_of_arguments_becomes_hyperparameters(save: Callable[[object], Path]) -> None:
    path = save(
        {"args": argparse.Namespace(lr=0.1, name="x", _private=1), "state_dict": nn.Linear(1, 1).state_dict()}
    )
    assert open_checkpoint(path).hyperparameters == {"lr": 0.1, "name": "x"}


def test_stable_baselines(tmp_path: Path) -> None:
    net = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr(
            "data", json.dumps({"num_timesteps": 500, "gamma": 0.99, "policy": {":type:": "abc"}})
        )
        for name, value in (("policy.pth", net), ("policy.optimizer.pth", optimizer)):
            with archive.open(name, "w") as member:
                torch.save(value.state_dict(), member)
    checkpoint = open_checkpoint(tmp_path / "model.zip")
    assert checkpoint.format == "stable-baselines3"
    assert checkpoint.step == 500
    assert checkpoint.hyperparameters == {"num_timesteps": 500, "gamma": 0.99}
    assert_same(group(checkpoint, "model")["weight"], net.weight)
    found = {(ref.name, ref.slot): ref for ref in checkpoint.tensors}
    assert_same(found["weight", "exp_avg_sq"], optimizer.state[net.weight]["exp_avg_sq"])


def test_a_pickled_dict_of_arrays(tmp_path: Path) -> None:
    import pickle

    array = np.arange(6.0).reshape(2, 3)
    (tmp_path / "c.pth").write_bytes(pickle.dumps({"w": array}))
    np.testing.assert_array_equal(values(open_checkpoint(tmp_path / "c.pth").tensors[0]), array)


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_keras_models(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )
    model.compile("adam", "mse")
    save = model.save_weights if "weights" in name else model.save
    save(str(tmp_path / name))
    checkpoint = open_checkpoint(tmp_path / name)
    assert checkpoint.format == "hdf5"
    got = [(ref.shape, values(ref).tolist()) for ref in checkpoint.tensors if ref.group == "model"]
    for weight in model.get_weights():
        assert (weight.shape, weight.tolist()) in got
    kernel = next(ref for ref in checkpoint.tensors if "kernel" in ref.name)
    assert kernel.shape == (3, 4)
    assert next(kernel.blocks(8)).tolist() == values(kernel).reshape(-1)[:2].tolist()


def test_hdf5_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["w"] = np.ones(3)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["own"] = np.zeros(2)
        file["link"] = h5py.ExternalLink("secret.h5", "w")
        file["loop"] = h5py.SoftLink("/")
        file.create_dataset("bomb", (2**30,), "f8", compression="gzip")
        file.create_dataset("outside", (4,), "u1", external=[(str(tmp_path / "secret.h5"), 0, 4)])
    checkpoint = open_checkpoint(tmp_path / "m.h5")
    assert [ref.name for ref in checkpoint.tensors] == ["own"]
    assert {problem.kind for problem in checkpoint.problems} == {"unsafe"}
    assert len(checkpoint.problems) == 4


def test_hdf5_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(IngestError) as caught:
        open_checkpoint(tmp_path / "m.h5")
    assert caught.value.kind == "unsupported"
    assert "pip install h5py" in str(caught.value)


# --- what is none, or damaged --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "unsupported", "web page"),
        (b"Access denied\n", "unsupported", "plain text"),
        (b"\x00" * 300, "unsupported", "not a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_say_what_they_are(
    content: bytes, kind: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(IngestError) as caught:
        open_checkpoint(path)
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_tensorflow_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.data-00000-of-00001"
    path.write_bytes(bytes(50))
    with pytest.raises(IngestError, match="TensorFlow"):
        open_checkpoint(path)


def test_a_missing_file_is_an_ingest_error(tmp_path: Path) -> None:
    with pytest.raises(IngestError):
        open_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("writer", WRITERS)
def test_every_cut_and_every_flipped_byte_is_answered(writer: str, tmp_path: Path) -> None:
    """Opening and reading either work or raise IngestError, whatever happened to the file."""
    torch.save({"w": torch.randn(20), "step": 3}, tmp_path / "c.pt", **WRITERS[writer])
    whole = (tmp_path / "c.pt").read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[: int(n)] for n in rng.integers(0, len(whole), 60)]
    for at in rng.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        (tmp_path / "d.pt").write_bytes(content)
        try:
            list(layer_stats(open_checkpoint(tmp_path / "d.pt")))
        except IngestError as error:
            assert error.kind and str(tmp_path / "d.pt") in str(error)


def test_a_cut_legacy_file_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"a": torch.ones(100), "b": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-10])
    checkpoint = open_checkpoint(path)
    assert len(checkpoint.tensors) == 1
    assert len(checkpoint.problems) == 1
    assert "ends 10 bytes before" in checkpoint.problems[0].message


def test_a_cut_zip_says_so(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(100_000)}, tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:200_000])
    with pytest.raises(IngestError) as caught:
        open_checkpoint(tmp_path / "c.pt")
    assert caught.value.kind == "truncated"


def test_the_file_shrinking_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    forge.safetensors(path, {"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}, bytes(400))
    ref = open_checkpoint(path).tensors[0]
    os.truncate(path, 200)
    with pytest.raises(IngestError) as caught:
        values(ref)
    assert caught.value.kind == "truncated"


# --- hostile -------------------------------------------------------------------------------------------


def peak_of(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_checkpoint_that_would_run_a_command(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = hostile_pickles._Calls(os.system, f"touch '{canary}'")
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "extra": evil}, tmp_path / "c.pt")
    checkpoint = open_checkpoint(tmp_path / "c.pt")
    assert not canary.exists()
    assert [problem.kind for problem in checkpoint.problems] == ["unsafe"]
    assert "system" in checkpoint.problems[0].message
    assert "system" in str(checkpoint.metadata["pickle_critical"])
    assert list(group(checkpoint, "model")) == ["weight", "bias"]
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert canary.exists(), "the file was not armed"


def test_a_checkpoint_of_nothing_but_a_command(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    forge.torch_zip(tmp_path / "c.pt", hostile_pickles.runs_by_obj(canary))
    checkpoint = open_checkpoint(tmp_path / "c.pt")
    assert checkpoint.tensors == ()
    assert [problem.kind for problem in checkpoint.problems] == ["unsafe"]
    assert "os.system called" in str(checkpoint.metadata["pickle_critical"])
    assert not canary.exists()


ONE = b"K\x01\x85"
LIES: dict[str, dict[str, Any]] = {
    "offset behind the end": {"offset": 1},
    "huge offset": {"offset": 2**40},
    "negative offset": {"offset": -1},
    "negative stride": {"strides": b"J\xff\xff\xff\xff\x85"},
    "huge stride": {"strides": b"\x8a\x05\x00\x00\x00\x00\x10\x85"},
    "huge shape": {"shape": b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85"},
    "more sizes than strides": {"shape": b"K\x02K\x02\x86"},
    "expanded without end": {"shape": b"\x8a\x05\x00\x00\x00\x00\x10\x85", "strides": b"K\x00\x85"},
    "more elements than stored": {"elements": 5, "shape": b"K\x05\x85"},
    "huge storage": {"elements": 2**60},
    "negative storage": {"elements": -1},
    "unknown storage": {"storage": b"ctorch\nNoSuchStorage\n"},
    "foreign storage": {"storage": b"cproject\nStorage\n"},
    "no such member": {"key": "1"},
    "path as key": {"key": "../../../../etc/passwd"},
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_tensors_cost_their_file_nothing(lie: str, tmp_path: Path) -> None:
    path = forge.torch_zip(tmp_path / "c.pt", forge.torch_pickle(**LIES[lie]))

    def attempt() -> None:
        with pytest.raises(IngestError) as caught:
            open_checkpoint(path)
        assert caught.value.kind in {"damaged", "unsafe"}

    assert peak_of(attempt) < 4_000_000


def test_the_forged_tensor_without_a_lie_is_read(tmp_path: Path) -> None:
    path = forge.torch_zip(tmp_path / "c.pt", forge.torch_pickle(), data=np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(values(open_checkpoint(path).tensors[0]), [0, 1, 2, 3])


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 2**31},
        {"size": 2**31, "packed": 2**31},
        {"header": 2**31},
        {"header": 10},
        {"method": 99},
        {"flags": 1},
        {"method": 8, "packed": 8, "size": 2**30},
    ],
    ids=str,
)
def test_zip_entries_that_lie(fields: dict[str, int], tmp_path: Path) -> None:
    path = forge.torch_zip(tmp_path / "c.pt", forge.torch_pickle())
    forge.patch_directory(path, "archive/data/0", **fields)

    def attempt() -> None:
        with pytest.raises(IngestError):
            values(open_checkpoint(path).tensors[0])

    assert peak_of(attempt) < 4_000_000


def test_a_bomb_of_a_pickle_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.checkpoints.torch_zip.MAX_PICKLE", 1 << 24)
    path = forge.deflate_bomb(tmp_path / "c.pt", 32 << 20)

    def attempt() -> None:
        with pytest.raises(IngestError) as caught:
            open_checkpoint(path)
        assert caught.value.kind == "too-large"

    assert peak_of(attempt) < 4_000_000


def test_a_bomb_of_a_tensor_is_read_in_little_memory(tmp_path: Path) -> None:
    count = 3 << 20
    shape = b"J" + struct.pack("<i", count) + b"\x85"
    pickled = forge.torch_pickle(elements=count, shape=shape)
    path = forge.torch_zip(tmp_path / "c.pt", pickled, data=bytes(4 * count), compress=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 17
    assert peak_of(lambda: list(layer_stats(open_checkpoint(path)))) < 8_000_000


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = forge.torch_zip(tmp_path / "c.pt", forge.torch_pickle())
    forge.patch_directory(path, "archive/data/0", header=0)
    with pytest.raises(IngestError) as caught:
        open_checkpoint(path)
    assert caught.value.kind == "unsafe"


def test_names_that_climb_out_write_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(inner / "c.pt", "w") as archive:
        archive.writestr("../archive/data.pkl", forge.torch_pickle())
        archive.writestr("../archive/data/0", np.arange(4, dtype="<f4").tobytes())
        archive.writestr("../../escaped", "x")
    checkpoint = open_checkpoint(inner / "c.pt")
    assert [ref.name for ref in checkpoint.tensors] == ["weight"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["c.pt", "inner"]


BAD_HEADERS: dict[str, tuple[object, bytes, int | None]] = {
    "length": ({}, b"", 2**63),
    "long header": ({}, b"", 10**8 + 1),
    "cut header": ({}, b"", 1_000),
    "no JSON": (b"{oops", b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "a list": ([1], b"", None),
    "behind the end": ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(8), None),
    "wrong size": ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, bytes(8), None),
    "huge shape": ({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8), None),
    "negative": ({"w": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, bytes(8), None),
    "backwards": ({"w": {"dtype": "U8", "shape": [0], "data_offsets": [8, 0]}}, bytes(8), None),
    "unknown type": ({"w": {"dtype": "F1", "shape": [8], "data_offsets": [0, 8]}}, bytes(8), None),
    "no description": ({"w": 3}, bytes(8), None),
    "shape of text": ({"w": {"dtype": "F32", "shape": "22", "data_offsets": [0, 8]}}, bytes(8), None),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_safetensors_that_lie(name: str, tmp_path: Path) -> None:
    header, data, length = BAD_HEADERS[name]
    path = forge.safetensors(tmp_path / "m.safetensors", header, data, length)

    def attempt() -> None:
        with pytest.raises(IngestError) as caught:
            open_checkpoint(path)
        assert caught.value.kind in {"damaged", "truncated"}

    assert peak_of(attempt) < 4_000_000


def test_overlapping_safetensors_are_reported(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
        "b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]},
    }
    checkpoint = open_checkpoint(forge.safetensors(tmp_path / "m.safetensors", header, bytes(12)))
    assert [problem.kind for problem in checkpoint.problems] == ["damaged"]
    assert "overlaps" in checkpoint.problems[0].message


def test_nothing_of_torch_is_imported_to_read(tmp_path: Path) -> None:
    import subprocess
    import sys

    torch.save({"w": torch.ones(3)}, tmp_path / "c.pt")
    code = (
        "import sys; from pathlib import Path; from analyzer.checkpoints import open_checkpoint as o; "
        f"assert o(Path({str(tmp_path / 'c.pt')!r})).tensors; "
        "assert not {'torch', 'scipy', 'pandas', 'h5py', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --- registry ------------------------------------------------------------------------------------------


def test_containers_are_found_by_scanning_and_sorted() -> None:
    names = [container.NAME for container in containers()]
    assert {"torch-zip", "torch-legacy", "safetensors", "stable-baselines3", "misnamed"} <= set(names)
    orders = [container.ORDER for container in containers()]
    assert orders == sorted(orders)
    assert all(container.SUMMARY for container in containers())


@pytest.mark.parametrize(
    "name", ["events.out.tfevents.1", "log.csv", "history.pkl", "notes.txt", "archive.zip"]
)
def test_other_files_are_not_claimed(name: str) -> None:
    head = {"archive.zip": b"PK\x03\x04" + bytes(26) + b"photos/1.jpg"}.get(name, b"step,loss\n1,2\n")
    assert container_for(Path(name), head) is None


# --- evidence ------------------------------------------------------------------------------------------


def saved(tmp_path: Path, value: object, name: str = "c.pt") -> Checkpoint:
    torch.save(value, tmp_path / name)
    return open_checkpoint(tmp_path / name)


def test_gradient_rms_is_that_of_a_constant_gradient(tmp_path: Path) -> None:
    """With the same gradient at every step, bias correction gives back its size, at any step."""
    layers = nn.Sequential(*[nn.Linear(3, 3, bias=False) for _ in range(6)])
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.0)
    sizes = [10.0**-i for i in range(6)]
    for _ in range(7):
        for parameter, size in zip(layers.parameters(), sizes, strict=True):
            parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
    checkpoint = saved(tmp_path, {"model": layers.state_dict(), "optimizer": optimizer.state_dict()})
    rows = evidence.gradient_rms(checkpoint, layer_stats(checkpoint))
    assert [row.layer for row in rows] == [f"{i}.weight" for i in range(6)]
    assert [row.rms for row in rows] == pytest.approx(sizes, rel=1e-4)
    assert evidence.first_last_ratio(rows) == pytest.approx(10**4, rel=1e-3)
    assert not any(row.zero for row in rows)


def test_a_parameter_without_any_gradient_is_zero(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net.weight.grad, net.bias.grad = torch.zeros(2, 2), torch.ones(2)
    optimizer.step()
    checkpoint = saved(tmp_path, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    rows = {row.layer: row.zero for row in evidence.gradient_rms(checkpoint, layer_stats(checkpoint))}
    assert rows == {"weight": True, "bias": False}


def test_update_ratio_is_what_adam_does_next(tmp_path: Path) -> None:
    net, optimizer = trained(lambda p: torch.optim.Adam(p, lr=0.01), steps=5)
    checkpoint = saved(tmp_path, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    got = {row.layer: row.ratio for row in evidence.update_ratio(checkpoint)}
    for name, parameter in net.named_parameters():
        state = optimizer.state[parameter]
        m, v = state["exp_avg"].double() / (1 - 0.9**5), state["exp_avg_sq"].double() / (1 - 0.999**5)
        step = 0.01 * m / (v.sqrt() + 1e-8)
        expected = step.square().mean().sqrt() / parameter.detach().double().square().mean().sqrt()
        if expected.isfinite():
            assert got[name] == pytest.approx(float(expected), rel=1e-5)


def test_weight_scale_knows_the_standard_schemes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(400, 300), nn.BatchNorm1d(300), nn.Linear(300, 200), nn.Embedding(50, 60))
    nn.init.kaiming_normal_(net[2].weight)
    state = {("emb" + name[1:] if name.startswith("3") else name): t for name, t in net.state_dict().items()}
    checkpoint = saved(tmp_path, state)
    rows = {row.layer: row.ratio for row in evidence.weight_scale(layer_stats(checkpoint))}
    assert rows == {
        "0.weight": pytest.approx(1 / math.sqrt(3), rel=0.02),
        "2.weight": pytest.approx(math.sqrt(2), rel=0.02),
    }


def test_dead_channels_of_a_batch_norm(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 1.0, -1.0, 0.0, 0.0]))
        norm.bias.copy_(torch.tensor([-3.2, -3.0, -3.2, 1.0, -1.0]))
    off = nn.BatchNorm1d(5)
    nn.init.zeros_(off.weight)
    checkpoint = saved(tmp_path, nn.ModuleDict({"bn": norm, "off": off, "ln": nn.LayerNorm(5)}).state_dict())
    rows = evidence.dead_units(checkpoint, layer_stats(checkpoint))
    assert [(row.layer, row.units, row.dead, row.basis) for row in rows] == [("bn", 5, 3, "batchnorm")]
    assert rows[0].share == 0.6


def test_units_that_relu_killed_show_in_the_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].bias[:3] = -100.0
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(64, 4)).square().mean().backward()
        optimizer.step()
    checkpoint = saved(tmp_path, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    rows = {(r.layer, r.basis): r.dead for r in evidence.dead_units(checkpoint, layer_stats(checkpoint))}
    assert rows["0.weight", "optimizer"] == 3
    assert rows["2.weight", "optimizer"] == 0
    assert rows["0.weight", "weights"] == 0


@pytest.mark.parametrize("half", [False, True])
def test_frozen_tensors_are_told_from_moved_ones(half: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.Linear(40, 2))
    before = saved(tmp_path, net.state_dict(), "a.pt")
    after = copy.deepcopy(net)
    with torch.no_grad():
        after[2].weight.mul_(1.5)
        after[1].running_mean.add_(1)
    if half:
        after = after.to(torch.float64)
    rows = {row.name: row for row in difference(before, saved(tmp_path, after.state_dict(), "b.pt"))}
    assert rows["0.weight"].status == "identical"
    assert rows["0.weight"].relative == 0
    assert rows["2.weight"].status == "changed"
    assert rows["2.weight"].relative == pytest.approx(0.5, rel=1e-6)
    assert rows["1.running_mean"].relative is None
    assert not rows["1.running_mean"].parameter


def test_memory_of_reading_is_bounded_by_the_block(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(8 << 20))
    blocks = StoredBlocks(Region(str(path), 0, 8 << 20, 8 << 20), "float16", (1 << 22,), (1,))
    assert peak_of(lambda: sum(len(block) for block in blocks(1 << 16))) < 1 << 20


REAL = Path(__file__).parents[2] / "shared" / "real_logs" / "ckpt"


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real logs is not here")
def test_real_checkpoints_open_or_say_why() -> None:
    opened = 0
    for path in REAL.rglob("*"):
        if not path.is_file():
            continue
        try:
            opened += len(open_checkpoint(path).tensors) > 0
        except IngestError as error:
            assert error.kind in {"pointer", "unsupported"}, error
    assert opened >= 15
