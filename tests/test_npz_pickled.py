"""NumPy archives and pickled histories: points, axes, and what hostile files must not do."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import IngestError
from analyzer.ingest import npz, pickled
from analyzer.model import Reading
from analyzer.pipeline import analyze_paths
from analyzer.rulebook import load_rules


def curves(reading: Reading) -> dict[str, tuple[list[float], list[float]]]:
    return {s.tag: (s.steps.tolist(), s.values.tolist()) for s in reading.series}


def head(path: Path) -> bytes:
    return path.read_bytes()[:4096]


def saved(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


# NumPy


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1)])
def test_evaluations_are_means_over_episodes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "evaluations.npz"
    rewards = np.array([[1, 3], [2, 6], [10, 20]]).reshape(shape)
    np.savez(path, timesteps=[100, 200, 300], results=rewards, ep_lengths=np.array([[5, 7], [8, 8], [1, 3]]))
    assert npz.claims(path, head(path))
    assert curves(npz.read(path)) == {
        "eval/mean_reward": ([100, 200, 300], [2, 4, 15]),
        "eval/mean_ep_length": ([100, 200, 300], [6, 8, 2]),
    }


def test_arrays_share_the_step_of_their_length(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    np.savez_compressed(
        path, train_loss=[3.0, 2.0, 1.0], step=[0, 10, 20], val_loss=[1.5, 1.25], weights=np.zeros((50, 50))
    )
    assert npz.claims(path, head(path))
    assert curves(npz.read(path)) == {
        "train_loss": ([0, 10, 20], [3.0, 2.0, 1.0]),
        "val_loss": ([0, 1], [1.5, 1.25]),
    }


def test_single_array(tmp_path: Path) -> None:
    path = tmp_path / "train_losses.npy"
    np.save(path, np.array([1.0, np.nan, 0.5], dtype=np.float32))
    assert npz.claims(path, head(path))
    assert np.array_equal(npz.read(path).series[0].values, [1.0, np.nan, 0.5], equal_nan=True)


def test_weights_and_data_are_no_log(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, w1=np.zeros((64, 64)), b1=np.zeros(64))
    assert not npz.claims(path, head(path))
    with pytest.raises(IngestError) as caught:
        npz.read(path)
    assert caught.value.kind == "unsupported"


def test_objects_in_arrays_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    np.savez(path, loss=[1.0, 0.5], extra=np.array([Trap(tmp_path / "witness")], dtype=object))
    assert curves(npz.read(path)) == {"loss": ([0, 1], [1.0, 0.5])}
    assert not (tmp_path / "witness").exists()


def array_bytes(shape: tuple[int, ...], data: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def test_a_shape_beyond_the_data_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("loss.npy", array_bytes((2,), np.array([1.0, 0.5]).tobytes()))
        archive.writestr("acc.npy", array_bytes((1 << 60,), b"\0" * 16))
    reading = npz.read(path)
    assert curves(reading) == {"loss": ([0, 1], [1.0, 0.5])}
    assert [p.kind for p in reading.problems] == ["damaged"] and "'acc'" in reading.problems[0].message


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 1 << 16)
    path = tmp_path / "log.npz"
    np.savez_compressed(path, loss=[1.0, 0.5], acc=np.zeros(1 << 20))
    reading = npz.read(path)
    assert list(curves(reading)) == ["loss"] and "'acc'" in reading.problems[0].message


@pytest.mark.parametrize("keep", [10, 100, 300])
def test_cut_archive(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "evaluations.npz"
    np.savez(path, timesteps=[1, 2], results=np.ones((2, 2)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IngestError) as caught:
        npz.read(path)
    assert caught.value.kind == "damaged" and "evaluations.npz" in str(caught.value)


def test_cut_array(tmp_path: Path) -> None:
    path = tmp_path / "loss.npy"
    np.save(path, np.arange(100.0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IngestError) as caught:
        npz.read(path)
    assert caught.value.kind == "damaged"


# Pickles


class Trap:
    """Makes a folder when a pickle of it is loaded freely."""

    def __init__(self, witness: Path) -> None:
        self.witness = str(witness)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.witness,)


def test_keras_history(tmp_path: Path) -> None:
    path = saved(tmp_path / "history.pkl", {"loss": [1.0, 0.5], "val_loss": [1.5, float("inf")]})
    assert pickled.claims(path, head(path))
    reading = pickled.read(path)
    assert curves(reading) == {"loss": ([0, 1], [1.0, 0.5]), "val_loss": ([0, 1], [1.5, float("inf")])}
    assert {s.axis for s in reading.series} == {"epoch"}


def test_numpy_numbers_nested_dicts_and_settings(tmp_path: Path) -> None:
    value = {
        "train": {"loss": [np.float32(1.5), np.float32(0.5)]},
        "val": {"loss": np.array([2.0, 1.0])},
        "config": {"lr": 0.1, "name": "x"},
    }
    reading = pickled.read(saved(tmp_path / "log.p", value))
    assert curves(reading) == {"train/loss": ([0, 1], [1.5, 0.5]), "val/loss": ([0, 1], [2.0, 1.0])}
    assert dict(reading.hyperparameters) == {"config.lr": 0.1, "config.name": "x"}


def test_list_of_records(tmp_path: Path) -> None:
    records = [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.5, "acc": 0.75}]
    found = curves(pickled.read(saved(tmp_path / "logs.pickle", records)))
    assert found == {"loss": ([10, 20], [1.0, 0.5]), "acc": ([20], [0.75])}


def test_history_inside_of_its_object(tmp_path: Path) -> None:
    value = {"params": {"epochs": 2}, "history": collections.defaultdict(list, {"loss": [1.0, 0.5]})}
    assert list(curves(pickled.read(saved(tmp_path / "history.pkl", value)))) == ["loss"]


def test_plain_list_is_named_after_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "train_losses.pkl", [3.0, 2.0, 1.0])
    assert pickled.claims(path, head(path))
    assert curves(pickled.read(path)) == {"train_losses": ([0, 1, 2], [3.0, 2.0, 1.0])}


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = saved(tmp_path / "history.pkl", {"loss": [1.0, 0.5], "x": Trap(witness)})
    with pytest.raises(IngestError) as caught:
        pickled.read(path)
    assert caught.value.kind == "unsafe" and not witness.exists()


def test_an_unsafe_history_is_a_finding_and_told_once(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = saved(tmp_path / "history.pkl", {"loss": [1.0, 0.5], "x": Trap(witness)})
    report = analyze_paths([path], load_rules())
    assert [finding.rule for finding in report.runs[0].findings] == ["unsafe-pickle"]
    assert [problem.kind for problem in report.runs[0].problems] == ["unsafe"]
    assert not witness.exists()


@pytest.mark.parametrize("value", [{"a": "b"}, [], {}, "text", {"x": np.zeros((9, 9))}, [1.0], {"loss": 0.5}])
def test_other_pickles_are_no_log(tmp_path: Path, value: object) -> None:
    with pytest.raises(IngestError) as caught:
        pickled.read(saved(tmp_path / "history.pkl", value))
    assert caught.value.kind == "unsupported"


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    data = saved(tmp_path / "dataset.pkl", {"x": [1, 2, 3], "y": [4, 5, 6]})
    assert not pickled.claims(data, head(data))
    assert not pickled.claims(Path("history.pkl"), b"PK\x03\x04")
    assert not pickled.claims(Path("history.pkl"), b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n")


def test_empty_and_cut_pickles(tmp_path: Path) -> None:
    path = tmp_path / "history.pkl"
    path.write_bytes(b"")
    with pytest.raises(IngestError) as caught:
        pickled.read(path)
    assert caught.value.kind == "empty"
    path.write_bytes(pickle.dumps({"loss": [1.0, 0.5, 0.25]})[:-12])
    with pytest.raises(IngestError, match=r"history\.pkl"):
        pickled.read(path)
