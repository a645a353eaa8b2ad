"""Checkpoints in other frameworks' formats and in several files, against what their writers had."""

from __future__ import annotations

import enum
import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analyzer
from analyzer.auditing.bundles import bundle
from analyzer.checkpoints import leading, open_checkpoint
from analyzer.checkpoints.statistics import layer_stats
from analyzer.discover import discover
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, TensorRef

FILES = Path(__file__).parent / "checkpoint_files"
WRITTEN = {  # name in expected/ -> what is opened, and its format
    "model.onnx": ("model.onnx", "onnx"),
    "external.onnx": ("external.onnx", "onnx"),
    "model.gguf": ("model.gguf", "gguf"),
    "state.msgpack": ("state.msgpack", "flax"),
    "model.keras": ("model.keras", "hdf5"),
    "model.h5": ("model.h5", "hdf5"),
    "model.weights.h5": ("model.weights.h5", "hdf5"),
    "trainer": ("trainer/checkpoint-2", "transformers"),
    "shards": ("shards", "sharded"),
    "lightning.ckpt": ("lightning.ckpt", "torch-zip"),
    "scripted.pt": ("scripted.pt", "torchscript"),
    "frozen.pt": ("frozen.pt", "torchscript"),
    "exported.pt2": ("exported.pt2", "torch-export"),
    "distributed": ("distributed", "torch-distributed"),
    "zero2": ("zero2/global_step3", "deepspeed"),
    "zero3": ("zero3/global_step3", "deepspeed"),
}


def values(ref: TensorRef, limit: int = 1 << 20) -> np.ndarray:
    blocks = list(ref.blocks(limit))
    return (np.concatenate(blocks) if blocks else np.zeros(0)).reshape(ref.shape)


def found(checkpoint: Checkpoint) -> dict[str, TensorRef]:
    """Tensors by name, those of the optimizer by ``name|slot``."""
    return {f"{ref.name}|{ref.slot}" if ref.slot else ref.name: ref for ref in checkpoint.tensors}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("limit", [1 << 20, 24])
def test_files_of_the_real_writers_hold_what_these_had(name: str, limit: int) -> None:
    path, form = WRITTEN[name]
    if form == "hdf5":
        pytest.importorskip("h5py")
    checkpoint = open_checkpoint(FILES / path)
    assert checkpoint.format == form
    refs = found(checkpoint)
    with np.load(FILES / "expected" / f"{name}.npz", allow_pickle=False) as expected:
        for key, value in expected.items():
            key = key if key in refs else key.partition(".")[2]  # a prefix common to all is folded
            assert refs[key].shape == value.shape, key
            np.testing.assert_array_equal(values(refs[key], limit), value, err_msg=key)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ("model.onnx", "external.onnx")])
def test_their_tensors_are_measured(name: str) -> None:
    pytest.importorskip("h5py")
    checkpoint = open_checkpoint(FILES / WRITTEN[name][0])
    measured = list(layer_stats(checkpoint))
    assert len(measured) == len(checkpoint.tensors)
    assert any(row.l2 for row in measured)


@pytest.mark.parametrize(
    "name", ["trainer", "lightning.ckpt", "distributed", "zero2", "zero3", "model.keras", "model.weights.h5"]
)
def test_optimizer_state_is_known_by_its_parameters(name: str) -> None:
    pytest.importorskip("h5py")
    checkpoint = open_checkpoint(FILES / WRITTEN[name][0])
    guessed = name == "trainer"  # whose safetensors are sorted by name
    assert checkpoint.metadata["optimizer_names_known"] is not guessed
    assert checkpoint.metadata.get("optimizer_names_guessed", False) is guessed
    assert checkpoint.optimizer["kind"] == "adam"
    assert checkpoint.optimizer["step"] == {"lightning.ckpt": 8, "trainer": 2, "distributed": 2}.get(name, 3)


def test_what_is_sorted_by_name_says_that_equal_shapes_may_be_swapped() -> None:
    problems = open_checkpoint(FILES / "trainer" / "checkpoint-2").problems
    assert [problem.kind for problem in problems] == ["unsure"]


def test_a_trainers_folder_gives_step_settings_and_schedule() -> None:
    checkpoint = open_checkpoint(FILES / "trainer" / "checkpoint-2")
    assert (checkpoint.step, checkpoint.epoch) == (2, 1)
    assert checkpoint.hyperparameters["per_device_train_batch_size"] == 4
    assert checkpoint.metadata["scheduler.last_epoch"] == 2


def test_quantised_types_without_a_plain_layout_are_listed() -> None:
    (problem,) = open_checkpoint(FILES / "model.gguf").problems
    assert problem.kind == "unsupported" and "tq1_0" in problem.message


# --- several files, one checkpoint -------------------------------------------------------------------


def copied(name: str, tmp_path: Path) -> Path:
    target = tmp_path / name
    shutil.copytree(FILES / name, target)
    return target


@pytest.mark.parametrize("name", ["trainer", "shards", "distributed", "zero2", "zero3"])
def test_a_checkpoint_of_many_files_is_one_of_its_run(name: str, tmp_path: Path) -> None:
    (group,) = discover([copied(name, tmp_path)]).groups
    assert len(group.checkpoints) == 1
    assert group.path.is_dir()


def test_a_missing_shard_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    lost = folder / "model-00002-of-00003.safetensors"
    whole = len(open_checkpoint(folder).tensors)
    lost.unlink()
    checkpoint = open_checkpoint(folder / "model.safetensors.index.json")
    assert 0 < len(checkpoint.tensors) < whole
    (problem,) = checkpoint.problems
    assert problem.kind == "missing" and lost.name in problem.message


def test_a_damaged_shard_costs_itself(tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    (folder / "model-00001-of-00003.safetensors").write_bytes(b"\x10" + bytes(7) + b"no JSON at all..")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors
    assert [problem.kind for problem in checkpoint.problems] == ["damaged"]
    assert "model-00001-of-00003" in checkpoint.problems[0].message


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    """Every tensor here has a piece in either file: without one, none is whole."""
    folder = copied("distributed", tmp_path)
    (folder / "__1_0.distcp").unlink()
    with pytest.raises(IngestError, match=r"__1_0\.distcp is missing") as caught:
        open_checkpoint(folder)
    assert caught.value.kind == "missing"


def test_a_cut_rank_costs_the_tensors_behind_the_cut(tmp_path: Path) -> None:
    folder = copied("distributed", tmp_path)
    shard = folder / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:5_000])
    checkpoint = open_checkpoint(folder)
    assert {problem.kind for problem in checkpoint.problems} == {"truncated"}
    assert checkpoint.tensors


def test_a_shard_without_its_metadata_says_what_is_missing(tmp_path: Path) -> None:
    folder = copied("distributed", tmp_path)
    (folder / ".metadata").unlink()
    with pytest.raises(IngestError, match="metadata") as caught:
        open_checkpoint(folder / "__0_0.distcp")
    assert caught.value.kind == "missing"


def test_a_folder_of_several_checkpoints_asks_for_one(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(FILES / "model.onnx", tmp_path / name)
    with pytest.raises(IngestError, match=r"a\.onnx, b\.onnx"):
        open_checkpoint(tmp_path)


def test_weights_with_companions_stand_for_them(tmp_path: Path) -> None:
    folder = copied("trainer", tmp_path) / "checkpoint-2"
    files = sorted(p for p in folder.iterdir() if p.suffix in (".pt", ".safetensors", ".pth", ".bin"))
    assert leading(files) == {folder / "model.safetensors": frozenset(files) - {folder / "model.safetensors"}}
    (folder / "optimizer.pt").write_bytes(b"PK\x03\x04 no archive")
    checkpoint = open_checkpoint(folder)
    assert any(ref.group == "model" for ref in checkpoint.tensors)
    assert any(problem.path.endswith("optimizer.pt") for problem in checkpoint.problems)


def test_folders_of_steps_are_checkpoints_of_one_run_in_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        shutil.copytree(FILES / "distributed", tmp_path / "run" / "checkpoint" / f"step-{step}")
    (run,) = analyzer.read(tmp_path)
    assert [Path(c.path).parent.name for c in run.checkpoints] == ["step-3", "step-20", "step-100"]


# --- numpy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_archives_of_weights(save: Any, tmp_path: Path) -> None:
    arrays = {
        "layer0/kernel": np.arange(12.0).reshape(3, 4),
        "layer0/bias": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "scale": np.float16(3),
        "none": np.zeros((0, 3)),
    }
    save(tmp_path / "weights.npz", **arrays)
    refs = found(open_checkpoint(tmp_path / "weights.npz"))
    assert refs.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(values(refs[name], 16), array)


def test_numpy_data_is_no_checkpoint_unless_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", x=np.zeros((4, 4)))
    assert discover([tmp_path]).groups == ()
    assert len(open_checkpoint(tmp_path / "images.npz").tensors) == 1


def test_pickled_objects_in_numpy_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", kernel=np.ones(3), objects=np.array([{"a": 1}], dtype=object))
    checkpoint = open_checkpoint(tmp_path / "weights.npz")
    assert [ref.name for ref in checkpoint.tensors] == ["kernel"]
    assert [problem.kind for problem in checkpoint.problems] == ["unsafe"]


# --- written here by torch -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["qint8", "quint8", "qint32"])
def test_quantised_tensors_are_what_they_stand_for(dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.quantize_per_tensor(torch.randn(5, 4), 0.05, 3, getattr(torch, dtype))
    torch.save({"w": tensor, "t": tensor.t()}, tmp_path / "c.pt")
    refs = found(open_checkpoint(tmp_path / "c.pt"))
    assert refs["w"].dtype == dtype and refs["w"].nbytes == tensor.numel() * tensor.element_size()
    np.testing.assert_array_equal(values(refs["w"], 16), tensor.dequantize().numpy())
    np.testing.assert_array_equal(values(refs["t"]), tensor.t().dequantize().numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 4), (6, 4, 3), (0, 4)], ids=str)
def test_scales_for_each_channel_are_those_of_its_row(shape: tuple[int, ...], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    scales, zeros = torch.rand(shape[0]).double() / 50 + 0.01, torch.arange(shape[0]) - 2
    tensor = torch.quantize_per_channel(torch.randn(shape), scales, zeros, 0, torch.qint8)
    torch.save({"w": tensor, "b": torch.ones(2)}, tmp_path / "c.pt")
    refs = found(open_checkpoint(tmp_path / "c.pt"))
    assert refs["w"].dtype == "qint8"
    np.testing.assert_array_equal(values(refs["w"], 16), tensor.dequantize().numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 4), (6, 4, 3), (3, 5, 2, 2)], ids=str)
@pytest.mark.parametrize("axis", [1, -1])
def test_scales_may_be_along_any_axis(shape: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    axis %= len(shape)
    scales, zeros = torch.rand(shape[axis]).double() / 50 + 0.01, torch.arange(shape[axis]) - 2
    tensor = torch.quantize_per_channel(torch.randn(shape), scales, zeros, axis, torch.qint8)
    torch.save({"w": tensor}, tmp_path / "c.pt")
    refs = found(open_checkpoint(tmp_path / "c.pt"))
    np.testing.assert_array_equal(values(refs["w"], 16), tensor.dequantize().numpy())


# --- quantised weights beside their scales -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["compressed.safetensors", "bitsandbytes.safetensors"])
@pytest.mark.parametrize("limit", [1 << 20, 1 << 12, 24])
def test_quantised_weights_are_what_their_writers_make_of_them(name: str, limit: int) -> None:
    refs = found(open_checkpoint(FILES / name))
    with np.load(FILES / "expected" / f"{name}.npz", allow_pickle=False) as expected:
        for key, value in expected.items():
            assert refs[key].shape == value.shape
            np.testing.assert_allclose(values(refs[key], limit), value, rtol=1e-6, atol=1e-9, err_msg=key)


def test_quantised_weights_are_measured_and_judged_as_reals() -> None:
    rows = {row.name: row for row in layer_stats(open_checkpoint(FILES / "compressed.safetensors"))}
    assert rows["block.weight"].dtype == "qfloat8_e4m3fn"
    assert all(
        0.01 < (rows[f"{name}.weight"].std or 0) < 0.03 for name in ("block", "tensor", "channel", "group")
    )
    assert not analyzer.analyze(FILES / "compressed.safetensors").findings


def test_packed_weights_are_said_not_to_be_measured() -> None:
    checkpoint = open_checkpoint(FILES / "compressed.safetensors")
    (problem,) = checkpoint.problems
    assert problem.kind == "unsupported"
    assert "quantised weights" in problem.message and "1 (compressed-tensors)" in problem.message
    assert "packed.weight_packed" not in found(checkpoint)


LAYOUTS = {  # tensors of a module as its writer names them, and whether its weight is decoded
    "one scale": ({"weight": "float8", "weight_scale": ()}, True),
    "by row": ({"weight": "float8", "weight_scale": (256,)}, True),
    "by block": ({"weight": "float8", "weight_scale_inv": (2, 1)}, True),
    "comfy": ({"weight": "float8", "scale_weight": (1,)}, True),
    "misfit": ({"weight": "float8", "weight_scale": (7,)}, False),
    "gptq": ({"qweight": "int32", "qzeros": "int32", "scales": (1, 256)}, False),
    "mlx": ({"weight": "uint32", "scales": (256, 2), "biases": (256, 2)}, False),
    "nvfp4": ({"weight": "uint8", "weight_scale": (256, 8)}, False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_layouts_of_quantised_weights(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tensors, decoded = LAYOUTS[name]
    raw = torch.arange(256 * 32).reshape(256, 32)
    made = {"norm.weight": torch.ones(4)}
    for key, kind in tensors.items():
        if kind == "float8":
            made[f"l.{key}"] = (raw % 97 - 48.0).to(torch.float8_e4m3fn)
        else:
            made[f"l.{key}"] = (
                raw.to(getattr(torch, kind)) if isinstance(kind, str) else torch.full(kind, 0.25)
            )
    safetensors.save_file(made, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    weight = found(checkpoint).get("l.weight") or found(checkpoint).get("l.qweight")
    assert (weight is not None) == decoded
    assert any("not measured" in problem.message for problem in checkpoint.problems) != decoded
    if weight:
        np.testing.assert_array_equal(values(weight), made["l.weight"].float().numpy() / 4)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("axis", "cells"), [(None, ()), (0, (6,)), (1, (8,)), (-1, (8,)), (1, (6, 4))], ids=str
)
def test_dequantised_initializers_are_what_the_operator_makes_of_them(
    kind: str, axis: int | None, cells: tuple[int, ...], tmp_path: Path
) -> None:
    """Against ONNX's own reference implementation; scales of two axes are for blocks of two columns."""
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    rng = np.random.default_rng(0)
    info = np.iinfo(kind)
    numbers = rng.integers(info.min, info.max, (6, 8), kind)
    scale = np.float32(rng.uniform(0.001, 0.01, cells))
    zero = np.asarray(rng.integers(0, 20, cells), kind)
    make, array = onnx.helper, onnx.numpy_helper.from_array
    settings = {} if axis is None else {"axis": axis, "block_size": 2 if len(cells) == 2 else 0}
    node = make.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **settings)
    point = make.make_tensor("z", onnx.helper.np_dtype_to_tensor_dtype(zero.dtype), cells, zero.reshape(-1))
    result = make.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [6, 8])
    kept = [array(numbers, "q"), array(scale, "s"), point]
    graph = make.make_graph([node], "graph", [], [result], initializer=kept)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)])
    onnx.save(model, tmp_path / "m.onnx")
    (expected,) = reference.ReferenceEvaluator(model).run(None, {})
    weight = found(open_checkpoint(tmp_path / "m.onnx"))["q"]
    assert weight.dtype == f"q{kind}"
    np.testing.assert_allclose(values(weight, 24), expected, rtol=1e-6)


def test_integers_are_no_weights_out_of_proportion(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", table=np.full((20, 20), 1 << 30) + np.arange(20))
    assert not analyzer.analyze(tmp_path / "weights.npz").findings


# --- DeepSpeed, laid out as its documentation says ---------------------------------------------------------


class Stage(enum.IntEnum):
    """DeepSpeed keeps its own enumeration's member, not a number."""

    ONE, TWO, THREE = 1, 2, 3


def zero_folder(folder: Path, stage: int, ranks: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """A folder of ZeRO's partitions; weights and squared gradients by name."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    weights = {"a.weight": torch.randn(3, 5), "a.bias": torch.randn(3), "b.weight": torch.randn(2, 3)}
    squares = {name: torch.rand_like(tensor) for name, tensor in weights.items()}
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    model = {
        "module": {n: (t.half() if stage < 3 else torch.empty(0).half()) for n, t in weights.items()},
        "param_shapes": [shapes], "global_steps": 40, "dp_world_size": ranks, "ds_config": {"zero": stage},
    }  # fmt: skip
    folder.mkdir()
    prefix = "zero_pp_rank_0_" if stage == 3 else ""
    torch.save(model, folder / f"{prefix}mp_rank_00_model_states.pt")
    for rank in range(ranks):
        weight, square = (_partition(t, stage, rank, ranks) for t in (weights, squares))
        inner = {
            "state": {0: {"step": 40, "exp_avg_sq": square}},
            "param_groups": [{"lr": 0.5, "params": [0]}],
        }
        state: dict[str, Any] = {"zero_stage": Stage(stage), "partition_count": ranks}
        if stage == 3:
            state |= {"fp32_flat_groups": [weight], "optimizer_state_dict": inner}
        else:
            state |= {"single_partition_of_fp32_groups": [weight], "base_optimizer_state": inner}
        torch.save(
            {"optimizer_state_dict": state}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        )
    return weights, squares


def _partition(tensors: dict[str, Any], stage: int, rank: int, ranks: int) -> Any:
    import torch

    def part(flat: Any) -> Any:
        share = -(-len(flat) // ranks)
        padded = torch.cat([flat, torch.zeros(share * ranks - len(flat))])
        return padded[rank * share : (rank + 1) * share].clone()

    flats = [tensor.flatten() for tensor in tensors.values()]
    return torch.cat([part(flat) for flat in flats]) if stage == 3 else part(torch.cat(flats))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_deepspeeds_partitions_are_put_together(stage: int, ranks: int, tmp_path: Path) -> None:
    weights, squares = zero_folder(tmp_path / "global_step40", stage, ranks)
    checkpoint = open_checkpoint(tmp_path / "global_step40")
    assert checkpoint.format == "deepspeed" and checkpoint.step == 40 and checkpoint.problems == ()
    assert checkpoint.optimizer["lr"] == 0.5 and checkpoint.optimizer["step"] == 40
    refs = found(checkpoint)
    for name, tensor in weights.items():
        stored = tensor.half() if stage < 3 else tensor
        np.testing.assert_array_equal(values(refs[name]), stored.numpy())
        np.testing.assert_array_equal(values(refs[f"{name}|exp_avg_sq"], 8), squares[name].numpy())
    (group,) = discover([tmp_path]).groups
    assert len(group.checkpoints) == 1


def test_a_missing_partition_leaves_the_weights(tmp_path: Path) -> None:
    zero_folder(tmp_path / "c", 2)
    (tmp_path / "c" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    checkpoint = open_checkpoint(tmp_path / "c")
    assert {ref.group for ref in checkpoint.tensors} == {"model"}
    assert any("1 of 2 ranks" in problem.message for problem in checkpoint.problems)


def test_the_optimizers_counter_is_not_fetched_from_another_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["vars/0"] = np.int64(4711)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2))
        file["optimizer"] = h5py.ExternalLink("secret.h5", "/")
    checkpoint = open_checkpoint(tmp_path / "m.h5")
    assert [ref.name for ref in checkpoint.tensors] == ["dense/kernel"]
    assert checkpoint.optimizer == {}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "c.pt")
    with pytest.raises(IngestError, match="neither a file nor a folder"):
        open_checkpoint(tmp_path / "c.pt")


# --- cut off: what was whole is read ---------------------------------------------------------------------


def test_a_cut_zip_gives_the_tensors_before_the_cut(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.full((1_000,), float(i)) for i, name in enumerate("abcd")}
    torch.save({"state_dict": state, "epoch": 2}, tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: int(len(whole) * 0.6)])
    checkpoint = open_checkpoint(tmp_path / "c.pt")
    refs = found(checkpoint)
    assert list(refs) == ["a", "b"] and checkpoint.epoch == 2
    for name, ref in refs.items():
        np.testing.assert_array_equal(values(ref), state[name].numpy())
    assert checkpoint.problems[0].kind == "truncated"
    assert str(int(len(whole) * 0.6)) in checkpoint.problems[0].message
    assert any("data/2" in problem.message for problem in checkpoint.problems)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_cut_numpy_archive_gives_the_arrays_before_the_cut(packing: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    rng = np.random.default_rng(0)
    arrays = {f"w{i}": rng.standard_normal(500) for i in range(4)}
    (np.savez if packing == zipfile.ZIP_STORED else np.savez_compressed)(path, **arrays)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    checkpoint = open_checkpoint(path)
    assert [ref.name for ref in checkpoint.tensors] == ["w0", "w1"]
    np.testing.assert_array_equal(values(checkpoint.tensors[1]), arrays["w1"])
    assert checkpoint.problems[0].kind == "truncated"


def test_cut_safetensors_give_the_tensors_before_the_cut(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    save_file({name: np.full(100, i, np.float32) for i, name in enumerate("abcd")}, path)
    path.write_bytes(path.read_bytes()[:-600])
    checkpoint = open_checkpoint(path)
    assert [ref.name for ref in checkpoint.tensors] == ["a", "b"]
    np.testing.assert_array_equal(values(checkpoint.tensors[1]), np.ones(100))
    assert "2 of 4 tensors" in checkpoint.problems[0].message
    assert {problem.kind for problem in checkpoint.problems} == {"truncated"}


@pytest.mark.parametrize("name", ["model.onnx", "model.gguf", "state.msgpack"])
def test_other_cut_files_give_what_is_before_the_cut(name: str, tmp_path: Path) -> None:
    whole = (FILES / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 8 // 10])
    checkpoint = open_checkpoint(path)
    refs = found(open_checkpoint(FILES / name))
    assert 0 < len(checkpoint.tensors) < len(refs)
    assert any(problem.kind == "truncated" for problem in checkpoint.problems)
    for key, ref in found(checkpoint).items():
        np.testing.assert_array_equal(values(ref), values(refs[key]))


@pytest.mark.parametrize(
    "name", sorted({path for path, _ in WRITTEN.values() if "." in path.rpartition("/")[2]})
)
def test_every_cut_and_every_flipped_byte_is_answered(name: str, tmp_path: Path) -> None:
    """Opening and reading work or raise IngestError, whatever happened to the file."""
    pytest.importorskip("h5py")
    whole = (FILES / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for trial in range(90 if len(whole) < 10_000 else 15):
        content = bytearray(whole[: int(rng.integers(1, len(whole)))] if trial % 3 == 0 else whole)
        for _ in range(trial % 3 * 2):
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            list(layer_stats(open_checkpoint(path)))
        except IngestError as error:
            assert error.kind and str(path) in str(error)


# --- names of the optimizer's parameters -----------------------------------------------------------------


def test_two_optimizers_of_equal_networks_keep_apart(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nets = {name: torch.nn.Linear(3, 3) for name in ("actor", "critic")}
    saved: dict[str, Any] = {}
    truth = {}
    for index, (name, net) in enumerate(nets.items()):
        optimizer = torch.optim.Adam(net.parameters())
        (net(torch.ones(2, 3)) * (index + 1)).sum().backward()
        optimizer.step()
        saved |= {name: net.state_dict(), f"{name}_optimizer": optimizer.state_dict()}
        truth[name] = optimizer.state[net.weight]["exp_avg_sq"]
    torch.save(saved, tmp_path / "c.pt")
    refs = found(open_checkpoint(tmp_path / "c.pt"))
    for name, tensor in truth.items():
        np.testing.assert_array_equal(values(refs[f"{name}.weight|exp_avg_sq"]), tensor.numpy())


def test_a_damaged_state_tensor_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(40, 30)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 40)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt") as old, zipfile.ZipFile(tmp_path / "d.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith("data/3"):
                new.writestr(name, old.read(name))
    checkpoint = open_checkpoint(tmp_path / "d.pt")
    assert any("optimizer state 'weight' 'exp_avg'" in problem.message for problem in checkpoint.problems)


@pytest.mark.parametrize("parameters", [[[]], [None], [[1], {}], ["a", 3.5]])
def test_parameter_lists_of_nonsense_are_survived(parameters: list[object], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": parameters}]}
    torch.save({"model": {"w": torch.ones(2)}, "optimizer": state}, tmp_path / "c.pt")
    checkpoint = open_checkpoint(tmp_path / "c.pt")
    assert {ref.group for ref in checkpoint.tensors} == {"model", "optimizer"}


def test_a_sharded_index_as_hugging_face_writes_bin_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    parts = {
        "pytorch_model-00001-of-00002.bin": {"model.a": torch.ones(2)},
        "pytorch_model-00002-of-00002.bin": {"b": torch.zeros(3)},
    }
    for name, state in parts.items():
        torch.save(state, tmp_path / name)
    index = {"metadata": {"total_size": 20}, "weight_map": {k: name for name, s in parts.items() for k in s}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert [ref.name for ref in checkpoint.tensors] == [
        "model.a",
        "b",
    ]  # one shard's prefix is not the model's
    assert checkpoint.problems == ()


def test_the_length_of_a_gguf_header_is_as_its_counts_say(tmp_path: Path) -> None:
    """Hand-made by the documented layout, big-endian: no real writer of it is at hand."""
    name = b"w"
    header = b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + struct.pack(">Q", 1) + name
    header += struct.pack(">IQIQ", 1, 4, 0, 0)
    (tmp_path / "m.gguf").write_bytes(header.ljust(64, b"\0") + np.arange(4, dtype=">f4").tobytes())
    np.testing.assert_array_equal(values(open_checkpoint(tmp_path / "m.gguf").tensors[0]), [0, 1, 2, 3])


# --- whole modules and what lies beside them, as projects pickle them --------------------------------------


def project_class(module: str, name: str, base: type, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A class that pickles as one of a project's own module."""
    import sys
    import types

    for part in (module.split(".")[0], module):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    made = type(name, (base,), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


@pytest.mark.parametrize(
    "module", ["ultralytics.nn.tasks", "test", "code.model", "trace", "profile.net", "models"]
)
def test_whole_modules_of_a_project_are_read_and_no_alarm(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    kind = project_class(module, "DetectionModel", torch.nn.Sequential, monkeypatch)
    net, average = kind(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), kind(torch.nn.Linear(3, 4))
    value = {
        "epoch": 7, "best_fitness": 0.5, "model": net.half(), "ema": average, "updates": 12, "optimizer": None,
        "train_args": {"lr0": 0.01, "imgsz": 640}, "date": "2024-01-01T00:00:00",
    }  # fmt: skip
    torch.save(value, tmp_path / "best.pt")
    checkpoint = open_checkpoint(tmp_path / "best.pt")
    assert checkpoint.epoch == 7 and checkpoint.hyperparameters["lr0"] == 0.01
    for group, module_saved in (("model", net), ("ema", average)):
        refs = {ref.name: ref for ref in checkpoint.tensors if ref.group == group}
        assert refs.keys() == module_saved.state_dict().keys()
        for name, tensor in module_saved.state_dict().items():
            np.testing.assert_array_equal(values(refs[name]), tensor.numpy())
    assert checkpoint.problems == ()
    assert not {"pickle_critical", "pickle_warning"} & checkpoint.metadata.keys()
    assert f"{module}.DetectionModel" in str(checkpoint.metadata["pickle_calls"])


def test_timms_checkpoints(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import argparse

    net = torch.nn.Linear(3, 2)
    value = {
        "epoch": 3, "arch": "resnet18", "state_dict": net.state_dict(), "optimizer": torch.optim.SGD(net.parameters(), 0.1).state_dict(),
        "version": 2, "args": argparse.Namespace(lr=0.1), "amp_scaler": {"scale": 512.0, "growth_factor": 2.0},
        "state_dict_ema": {name: tensor + 1 for name, tensor in net.state_dict().items()}, "metric": 71.5,
    }  # fmt: skip
    torch.save(value, tmp_path / "last.pth.tar")
    checkpoint = open_checkpoint(tmp_path / "last.pth.tar")
    groups = {
        group: [ref.name for ref in checkpoint.tensors if ref.group == group] for group in ("model", "ema")
    }
    assert groups == {"model": ["weight", "bias"], "ema": ["weight", "bias"]}
    assert checkpoint.metadata["loss_scale"] == 512.0 and checkpoint.hyperparameters == {"lr": 0.1}


# --- the rule ------------------------------------------------------------------------------------------


def test_a_run_with_an_unsafe_checkpoint_gets_the_finding(tmp_path: Path) -> None:
    from hostile import corpus

    corpus.FILES["reduce"][0](tmp_path)
    (run,) = analyzer.analyze(tmp_path).runs
    (finding,) = (finding for finding in run.findings if finding.rule == "unsafe-pickle")
    assert finding.severity == "critical" and "system called (byte" in finding.summary
    assert not (tmp_path / corpus.CANARY).exists()


def test_reaching_for_the_network_is_a_warning(tmp_path: Path) -> None:
    from hostile import hostile_files as forge

    forge.torch_zip(tmp_path / "c.pt", b"\x80\x02csocket\nsocket\n)R.")
    (run,) = analyzer.analyze(tmp_path).runs
    assert [f.severity for f in run.findings if f.rule == "unsafe-pickle"] == ["warning"]


@pytest.mark.parametrize(
    "name", ["lightning.ckpt", "trainer", "distributed", "scripted.pt", "zero2", "zero3"]
)
def test_files_of_the_real_writers_raise_no_alarm(name: str) -> None:
    metadata = open_checkpoint(FILES / WRITTEN[name][0]).metadata
    assert not {"pickle_critical", "pickle_warning"} & metadata.keys()
    assert metadata["pickle_imports"] != 0


def test_shards_belong_to_the_files_of_their_run_and_a_change_of_one_is_noticed(tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    (run,) = analyzer.read(folder)
    assert {Path(file).name for file in run.files} >= {file.name for file in folder.glob("*.safetensors*")}
    (group,) = discover([folder]).groups
    before = bundle(group, [folder])
    shard = max(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])
    assert bundle(group, [folder]) != before
