"""Event files against what their writers wrote, and against every kind of damage."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.errors import IngestError
from analyzer.ingest import crc32c, event_columns, event_forms, event_histograms, records, tensorboard
from analyzer.model import Histograms, Reading, Series

pytest.importorskip("tensorboard")
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

REAL_LOGS = Path(__file__).parents[2] / "shared" / "real_logs" / "events"
NO_LIMIT = dict.fromkeys(("scalars", "histograms", "tensors", "images", "audio", "compressedHistograms"), 0)

# --------------------------------------------------------------------------- writing


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), payload, struct.pack("<I", masked_crc32c(payload)))
    )


def version(wall_time: float = 1.0) -> Event:
    return Event(wall_time=wall_time, file_version="brain.Event:2")


def event(step: int, *values: Summary.Value, wall_time: float = 1.5e9) -> Event:
    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def scalar(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=value)


def plugin(name: str, content: bytes = b"") -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=name, content=content))


def shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def write(path: Path, events: Iterable[Event]) -> Path:
    path.write_bytes(b"".join(framed(item.SerializeToString()) for item in events))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Callable[[Iterable[Event]], Path]:
    return lambda events: write(tmp_path / "events.out.tfevents.1.host", events)


def one(reading: Reading) -> Series:
    assert len(reading.series) == 1
    return reading.series[0]


def same(a: Reading, b: Reading) -> None:
    assert [s.tag for s in a.series] == [s.tag for s in b.series]
    for left, right in zip(a.series, b.series, strict=True):
        np.testing.assert_array_equal(left.steps, right.steps)
        np.testing.assert_array_equal(left.values, right.values)
        np.testing.assert_array_equal(left.wall_times, right.wall_times)


# --------------------------------------------------------------------------- writers


def test_torch_writer(tmp_path: Path) -> None:
    writer_module = pytest.importorskip("torch.utils.tensorboard")
    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    with writer_module.SummaryWriter(tmp_path) as writer:
        for step, value in enumerate(values):
            writer.add_scalar("loss/train", value, step * 50, walltime=1000.0 + step)
            if step % 10 == 0:
                writer.add_scalar("loss/val", 2 * value, step * 50, walltime=1000.5 + step)
        writer.add_text("notes", "two *words*", 7)
        writer.add_image("picture", np.zeros((3, 8, 8)), 0)
    reading = tensorboard.read(next(tmp_path.iterdir()))
    train, val = reading.series
    assert (train.tag, val.tag) == ("loss/train", "loss/val")
    np.testing.assert_array_equal(train.values, values.astype(np.float64))
    np.testing.assert_array_equal(train.steps, 50.0 * np.arange(400))
    np.testing.assert_array_equal(train.wall_times, 1000.0 + np.arange(400))
    np.testing.assert_array_equal(val.values, 2 * values[::10].astype(np.float64))
    assert [(t.tag, t.step, t.value) for t in reading.texts] == [("notes/text_summary", 7.0, "two *words*")]
    assert reading.problems == ()


def test_torch_histograms(tmp_path: Path) -> None:
    writer_module = pytest.importorskip("torch.utils.tensorboard")
    rng = np.random.default_rng(1)
    data = [rng.normal(scale=10.0**-k, size=500) for k in range(4)]
    with writer_module.SummaryWriter(tmp_path) as writer:
        for step, values in enumerate(data):
            writer.add_histogram("layer.weight", values, step)
    (found,) = tensorboard.read(next(tmp_path.iterdir())).histograms
    assert found.tag == "layer.weight"
    np.testing.assert_array_equal(found.steps, np.arange(4))
    for k, values in enumerate(data):
        frame = slice(found.offsets[k], found.offsets[k + 1])
        left, right, counts = found.edges_left[frame], found.edges_right[frame], found.counts[frame]
        assert (found.minimum[k], found.maximum[k], found.count[k]) == (values.min(), values.max(), 500)
        assert found.total[k] == pytest.approx(values.sum())
        assert found.total_squares[k] == pytest.approx((values**2).sum())
        assert counts.sum() == 500
        assert (left <= right).all() and (left[1:] == right[:-1]).all()
        assert right[-1] == values.max()
        for low, high, count in zip(left, right, counts, strict=True):
            inside = (values >= low) & ((values < high) | (high == values.max()))  # as numpy closes bins
            assert count == inside.sum()


def test_tensorboardx_writer(tmp_path: Path) -> None:
    writer_module = pytest.importorskip("tensorboardX")
    with writer_module.SummaryWriter(str(tmp_path)) as writer:
        for step in range(20):
            writer.add_scalar("acc", step / 20, step)
    series = one(tensorboard.read(next(tmp_path.glob("*tfevents*"))))
    np.testing.assert_array_equal(series.values, (np.arange(20) / 20).astype(np.float32))


def test_torch_hyperparameters(tmp_path: Path) -> None:
    writer_module = pytest.importorskip("torch.utils.tensorboard")
    with writer_module.SummaryWriter(tmp_path) as writer:
        writer.add_hparams(
            {"lr": 1e-3, "bs": 32, "bn": True, "opt": "adam"}, {"hparam/acc": 0.5}, run_name="."
        )
    readings = [tensorboard.read(path) for path in sorted(tmp_path.rglob("*tfevents*"))]
    found = {key: value for reading in readings for key, value in reading.hyperparameters.items()}
    assert found == {"lr": 1e-3, "bs": 32.0, "bn": 1.0, "opt": "adam"}  # torch writes a bool as a number
    assert [s.tag for reading in readings for s in reading.series] == ["hparam/acc"]


def test_hyperparameter_without_a_value_is_none(log: Callable[..., Path]) -> None:
    from google.protobuf import struct_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    values = {
        "none": struct_pb2.Value(),
        "null": struct_pb2.Value(null_value=0),
        "list": struct_pb2.Value(list_value=struct_pb2.ListValue()),
        "empty": struct_pb2.Value(string_value=""),
        "flag": struct_pb2.Value(bool_value=False),
    }
    content = HParamsPluginData(session_start_info=SessionStartInfo(hparams=values)).SerializeToString()
    value = Summary.Value(tag="_hparams_/session_start_info", metadata=plugin("hparams", content))
    reading = tensorboard.read(log([version(), event(0, value)]))
    found = reading.hyperparameters
    assert found == {"none": None, "null": None, "list": None, "empty": "", "flag": False}
    assert found["flag"] is False


# --------------------------------------------------------------------------- encodings

DTYPES = {
    "float": (1, np.float32, "float_val"),
    "double": (2, np.float64, "double_val"),
    "int32": (3, np.int32, "int_val"),
    "uint8": (4, np.uint8, "int_val"),
    "int16": (5, np.int16, "int_val"),
    "int8": (6, np.int8, "int_val"),
    "int64": (9, np.int64, "int64_val"),
    "bool": (10, np.bool_, "bool_val"),
    "uint16": (17, np.uint16, "int_val"),
    "half": (19, np.float16, "half_val"),
    "uint32": (22, np.uint32, "uint32_val"),
    "uint64": (23, np.uint64, "uint64_val"),
}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("typed", [False, True])
def test_tensor_scalars_of_every_type(log: Callable[..., Path], name: str, typed: bool) -> None:
    number, dtype, slot = DTYPES[name]
    values = np.array([1, 0, 3, 1, 0, 1] * 40).astype(dtype)
    if np.issubdtype(dtype, np.signedinteger) or np.issubdtype(dtype, np.floating):
        values[2::6] = -3
    events = []
    for step, value in enumerate(values):
        tensor = TensorProto(dtype=number, tensor_shape=shape())
        if not typed:
            tensor.tensor_content = value.tobytes()
        elif slot == "half_val":
            tensor.half_val.append(int(value.view(np.uint16)))
        else:
            getattr(tensor, slot).append(value.item())
        metadata = plugin("scalars") if step == 0 else None
        events.append(event(step, Summary.Value(tag="epoch_loss", tensor=tensor, metadata=metadata)))
    series = one(tensorboard.read(log([version(), *events])))
    np.testing.assert_array_equal(series.values, values.astype(np.float64))
    np.testing.assert_array_equal(series.steps, np.arange(len(values)))


@pytest.mark.parametrize("typed", [False, True])
def test_bfloat16(log: Callable[..., Path], typed: bool) -> None:
    bits = 0xC049  # -3.140625
    tensor = TensorProto(dtype=14, tensor_shape=shape())
    if typed:
        tensor.half_val.append(bits)
    else:
        tensor.tensor_content = struct.pack("<H", bits)
    value = Summary.Value(tag="x", tensor=tensor, metadata=plugin("scalars"))
    assert one(tensorboard.read(log([version(), event(1, value)]))).values.tolist() == [-3.140625]


def test_tensor_without_elements_is_zero(log: Callable[..., Path]) -> None:
    tensor = TensorProto(dtype=1, tensor_shape=shape())
    value = Summary.Value(tag="x", tensor=tensor, metadata=plugin("scalars"))
    assert one(tensorboard.read(log([event(1, value)]))).values.tolist() == [0.0]


def test_tensor_histograms(log: Callable[..., Path]) -> None:
    tables = [np.array([[0.0, 1.0, 4.0], [1.0, 2.0, 0.0], [2.0, 4.0, 6.0]]), np.zeros((0, 3))]
    events = []
    for step, table in enumerate(tables):
        tensor = TensorProto(dtype=2, tensor_shape=shape(*table.shape), tensor_content=table.tobytes())
        metadata = plugin("histograms") if step == 0 else None
        events.append(event(step, Summary.Value(tag="w", tensor=tensor, metadata=metadata)))
    reading = tensorboard.read(log([version(), *events]))
    assert reading.series == ()
    (found,) = reading.histograms
    assert found.offsets.tolist() == [0, 3, 3]
    assert found.edges_left.tolist() == [0, 1, 2] and found.edges_right.tolist() == [1, 2, 4]
    assert found.counts.tolist() == [4, 0, 6]
    assert (found.minimum[0], found.maximum[0], found.count[0]) == (0, 4, 10)
    assert found.total[0] == 4 * 0.5 + 6 * 3
    assert found.count[1] == 0 and np.isnan(found.minimum[1])


def test_one_event_with_many_values_keeps_their_order(log: Callable[..., Path]) -> None:
    events = [event(s, scalar("a", s), scalar("b", -s), scalar("a", s + 0.5)) for s in range(200)]
    a, b = tensorboard.read(log([version(), *events])).series
    assert a.values.tolist() == [x for s in range(200) for x in (s, s + 0.5)]
    assert b.values.tolist() == [-s for s in range(200)]


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**14, 2**31, 2**42, 2**53, 2**63 - 1, -1, -(2**63)])
def test_steps_of_every_size(log: Callable[..., Path], step: int) -> None:
    assert (
        one(tensorboard.read(log([event(step, scalar("a", 1.0))] * 100))).steps.tolist()
        == [float(step)] * 100
    )


def test_values_that_are_not_finite_stay(log: Callable[..., Path]) -> None:
    values = [1.0, np.nan, np.inf, -np.inf, -0.0, 1e-45] * 30
    found = one(tensorboard.read(log(event(s, scalar("a", v)) for s, v in enumerate(values)))).values
    np.testing.assert_array_equal(found, np.array(values, np.float32).astype(np.float64))
    assert np.signbit(found[4])


def test_rewound_steps_stay_in_file_order(log: Callable[..., Path]) -> None:
    steps = [*range(500), *range(250, 700)]
    found = one(tensorboard.read(log(event(s, scalar("a", k)) for k, s in enumerate(steps))))
    assert found.steps.tolist() == steps
    assert found.values.tolist() == list(range(len(steps)))


def test_metadata_on_the_first_event_alone_decides(log: Callable[..., Path]) -> None:
    def tensor(value: float, name: str | None) -> Summary.Value:
        proto = TensorProto(dtype=1, tensor_shape=shape(), float_val=[value])
        return Summary.Value(tag="t", tensor=proto, metadata=plugin(name) if name else None)

    other = tensorboard.read(log([event(0, tensor(1, "mystery")), event(1, tensor(2, None))]))
    assert other.series == ()
    known = tensorboard.read(log([event(0, tensor(1, "scalars")), event(1, tensor(2, None))]))
    assert one(known).values.tolist() == [1, 2]


def test_values_that_are_no_numbers_are_reported(log: Callable[..., Path]) -> None:
    proto = TensorProto(dtype=7, tensor_shape=shape(), string_val=[b"oops"])
    value = Summary.Value(tag="t", tensor=proto, metadata=plugin("scalars"))
    reading = tensorboard.read(log([event(0, value, scalar("a", 1.0))]))
    assert one(reading).tag == "a"
    (problem,) = reading.problems
    assert problem.kind == "unsupported" and "'t'" in problem.message


def test_names_that_are_not_text(log: Callable[..., Path], tmp_path: Path) -> None:
    payload = event(1, scalar("abc", 2.0)).SerializeToString().replace(b"abc", b"a\xffc")
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(framed(payload))
    assert one(tensorboard.read(path)).tag == "a\\xffc"


def test_thousands_of_tags_in_random_order(log: Callable[..., Path]) -> None:
    rng = np.random.default_rng(2)
    order = rng.permutation(np.repeat(np.arange(3000), 3))
    events = [event(k, scalar(f"layer{tag}/grad", tag + k / 16384)) for k, tag in enumerate(order)]
    reading = tensorboard.read(log([version(), *events]))
    assert len(reading.series) == 3000
    for series in reading.series:
        tag = int(series.tag.removeprefix("layer").removesuffix("/grad"))
        where = np.flatnonzero(order == tag)
        np.testing.assert_array_equal(series.steps, where)
        np.testing.assert_array_equal(series.values, np.float32(tag + where / 16384))


# --------------------------------------------------------------------------- files without data


def test_header_only_file_says_it_is_empty(log: Callable[..., Path]) -> None:
    reading = tensorboard.read(log([version()]))
    assert reading.series == ()
    assert [p.kind for p in reading.problems] == ["empty"]


def test_file_without_version_record(log: Callable[..., Path]) -> None:
    reading = tensorboard.read(log([event(3, scalar("a", 2.0))]))
    assert one(reading).values.tolist() == [2.0] and reading.problems == ()


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", "empty", "0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "pointer", "git lfs pull"),
        (b"step,loss\n1,2\n" * 100, "unreadable", "not an event file"),
        (bytes(5000), "unreadable", "not an event file"),
        (framed(version().SerializeToString())[:20], "truncated", "first record"),
    ],
)
def test_files_that_give_nothing(tmp_path: Path, content: bytes, kind: str, says: str) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(content)
    with pytest.raises(IngestError, match=says) as caught:
        tensorboard.read(path)
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)


def test_a_folder_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(IngestError):
        tensorboard.read(tmp_path)


def test_claims() -> None:
    head = framed(version().SerializeToString())
    assert tensorboard.claims(Path("events.out.tfevents.17.host.1.0"), head)
    assert tensorboard.claims(Path("events.out.tfevents.17.host.1.0"), b"")
    assert tensorboard.claims(Path("events.out.tfevents.17.host.1.0.v2"), b"broken")
    assert tensorboard.claims(Path("renamed.bin"), head)
    assert not tensorboard.claims(Path("events.out.tfevents.17.csv"), b"Wall time,Step,Value\n")
    assert not tensorboard.claims(Path("renamed.bin"), b"Wall time,Step,Value\n")
    assert not tensorboard.claims(Path("train.tfrecord"), framed(b"\x0a\x05image"))


# --------------------------------------------------------------------------- damage


def sample_events() -> list[Event]:
    histogram = HistogramProto(min=-1, max=1, num=3, sum=0, sum_squares=2, bucket_limit=[0, 1], bucket=[1, 2])
    tensor = TensorProto(dtype=1, tensor_shape=shape(), tensor_content=struct.pack("<f", 0.25))
    keras = Summary.Value(tag="epoch_loss", tensor=tensor, metadata=plugin("scalars"))
    events = [version()]
    for step in range(0, 3000, 30):
        events.append(event(step, scalar("loss", step / 4), wall_time=1e9 + step))
        if step % 300 == 0:
            events += [event(step, scalar("val", -step), scalar("acc", 1.0)), event(step, keras)]
            events.append(event(step, Summary.Value(tag="w", histo=histogram)))
    return events


def regular_events() -> list[Event]:
    """What most loops write: the same tags at every step."""
    events = [version()]
    for step in range(150):
        events += [
            event(step, scalar(tag, step / 8), wall_time=step / 4) for tag in ("loss", "val", "acc/top")
        ]
    return events


def irregular_events() -> list[Event]:
    """Many tags in an order that does not repeat, in every encoding."""
    rng = np.random.default_rng(3)
    events = [version()]
    for step, kind in enumerate(rng.integers(0, 7, 400).tolist()):
        number = step / 8
        tensor = TensorProto(dtype=2, tensor_shape=shape(), tensor_content=struct.pack("<d", number))
        value = scalar(("loss", "val", "acc/top", "lr")[kind % 4], number)
        if kind == 4:
            value = Summary.Value(tag="double", tensor=tensor, metadata=plugin("scalars"))
        elif kind == 5:
            whole = TensorProto(dtype=9, tensor_shape=shape(), int64_val=[step])
            value = Summary.Value(tag="whole", tensor=whole)
        events.append(event(step, value, wall_time=step / 4))
    return events


def tensor_events() -> list[Event]:
    """What Keras writes: scalars as tensors, and in the first of each tag, behind it, what they are."""
    events = [version()]
    for step in range(100):
        for tag in ("loss", "acc"):
            tensor = TensorProto(dtype=1, tensor_shape=shape(), tensor_content=struct.pack("<f", step / 8))
            metadata = None if step else plugin("scalars")
            value = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
            events.append(event(step, value, wall_time=step + 0.5))
    return events


class Sample:
    def __init__(self, events: list[Event]):
        self.records = [framed(item.SerializeToString()) for item in events]
        self.whole = b"".join(self.records)
        self.ends = np.cumsum([len(item) for item in self.records])


MIXED, REGULAR, IRREGULAR = Sample(sample_events()), Sample(regular_events()), Sample(irregular_events())
SAMPLE, WHOLE, ENDS = MIXED.records, MIXED.whole, MIXED.ends
samples = st.sampled_from([MIXED, REGULAR, IRREGULAR])
places = st.floats(0, 1, exclude_max=True)  # as a share of the file


def points(reading: Reading) -> dict[str, list[tuple[float, float, float]]]:
    return {
        s.tag: list(zip(s.steps.tolist(), s.values.tolist(), s.wall_times.tolist(), strict=True))
        for s in reading.series
    }


def read_bytes(folder: Path, content: bytes) -> Reading | None:
    path = folder / "events.out.tfevents.1.host"
    path.write_bytes(content)
    try:
        return tensorboard.read(path)
    except IngestError:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@given(sample=samples, place=places)
@settings(deadline=None, max_examples=150)
def test_every_record_before_a_cut_is_read(folder: Path, sample: Sample, place: float) -> None:
    cut = int(place * len(sample.whole))
    reading = read_bytes(folder, sample.whole[:cut])
    complete = int(np.searchsorted(sample.ends, cut, side="right"))
    if complete == 0:
        assert reading is None
        return
    assert reading is not None
    expected = read_bytes(folder, sample.whole[: sample.ends[complete - 1]])
    assert expected is not None
    assert points(reading) == points(expected)
    cuts = [p for p in reading.problems if p.kind == "truncated"]
    if cut in sample.ends:
        assert not cuts
    else:
        (problem,) = cuts
        assert problem.offset == sample.ends[complete - 1]
        assert f"{cut - sample.ends[complete - 1]} bytes lost" in problem.message


@given(sample=samples, place=places, bit=st.integers(0, 7))
@settings(deadline=None, max_examples=300)
def test_a_flipped_bit_costs_one_record_and_is_reported(
    folder: Path, sample: Sample, place: float, bit: int
) -> None:
    damaged = bytearray(sample.whole)
    at = int(place * len(damaged))
    damaged[at] ^= 1 << bit
    reading = read_bytes(folder, bytes(damaged))
    hit = int(np.searchsorted(sample.ends, at, side="right"))
    expected = read_bytes(folder, b"".join(sample.records[:hit] + sample.records[hit + 1 :]))
    assert reading is not None and expected is not None
    assert points(reading) == points(expected)
    (problem,) = reading.problems
    assert problem.kind == "checksum"
    assert problem.offset == sample.ends[hit] - len(sample.records[hit])


@pytest.mark.parametrize("quick", [True, False], ids=["at once", "each"])
@given(sample=samples, hits=st.lists(st.tuples(places, places, st.integers(0, 7)), min_size=2, max_size=6))
@settings(max_examples=60)
def test_bits_flipped_in_several_payloads_cost_those_records(
    folder: Path, quick: bool, sample: Sample, hits: list[tuple[float, float, int]]
) -> None:
    damaged = [bytearray(record) for record in sample.records]
    for record, place, bit in hits:
        found = damaged[int(record * len(damaged))]
        found[records.HEADER + int(place * (len(found) - records.HEADER))] ^= 1 << bit
    whole = [one for one, other in zip(sample.records, damaged, strict=True) if one == other]
    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.setattr(crc32c, "compiled", lambda: None)
        reading = read_bytes(folder, b"".join(damaged))
    expected = read_bytes(folder, b"".join(whole))
    assert reading is not None and expected is not None
    assert points(reading) == points(expected)
    lost = len(damaged) - len(whole)
    counts = [problem.message.split()[0] for problem in reading.problems if problem.kind == "checksum"]
    assert counts == ([str(lost)] if lost else [])


@pytest.mark.parametrize("sample", [REGULAR, IRREGULAR], ids=["regular", "irregular"])
def test_the_same_bit_flipped_in_every_record(tmp_path: Path, sample: Sample) -> None:
    damaged = [bytearray(record) for record in sample.records]
    for record in damaged[1:]:
        record[-5] ^= 0x10
    reading = read_bytes(tmp_path, b"".join(damaged))
    assert reading is not None and reading.series == ()
    (problem,) = reading.problems
    assert problem.kind == "checksum" and problem.message.startswith(f"{len(damaged) - 1} records")


def test_a_tag_of_which_nothing_is_whole(tmp_path: Path) -> None:
    damaged = [r[:-1] + bytes([r[-1] ^ 1]) if b"val" in r else r for r in REGULAR.records]
    reading = read_bytes(tmp_path, b"".join(damaged))
    assert reading is not None
    expected = points(undamaged(tmp_path, REGULAR))
    del expected["val"]
    assert points(reading) == expected
    (problem,) = reading.problems
    assert problem.kind == "checksum" and problem.message.startswith("150 records")


@given(sample=samples, content=st.binary(max_size=300), place=places, lost=st.integers(0, 400))
@settings(deadline=None, max_examples=200)
def test_no_bytes_give_a_wrong_value_or_a_crash(
    folder: Path, sample: Sample, content: bytes, place: float, lost: int
) -> None:
    at = int(place * len(sample.whole))
    reading = read_bytes(folder, sample.whole[:at] + content + sample.whole[at + lost :])
    clean = points(undamaged(folder, sample))
    if reading is not None:
        for tag, found in points(reading).items():
            remaining = iter(clean[tag])
            assert all(point in remaining for point in found)  # a subsequence


def undamaged(folder: Path, sample: Sample) -> Reading:
    reading = read_bytes(folder, sample.whole)
    assert reading is not None and reading.problems == ()
    return reading


@given(payload=st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_valid_checksums_around_any_payload(folder: Path, payload: bytes) -> None:
    before, after = framed(event(1, scalar("a", 1.0)).SerializeToString()), SAMPLE[1]
    reading = read_bytes(folder, before + framed(payload) + after)
    assert reading is not None
    assert points(reading)["loss"]


def mutated_payloads() -> st.SearchStrategy[bytes]:
    payloads = [item.SerializeToString() for item in sample_events()]

    def change(payload: bytes, at: float, byte: int) -> bytes:
        where = int(at * len(payload))
        return payload[:where] + bytes([byte]) + payload[where + 1 :]

    return st.builds(
        change, st.sampled_from(payloads), st.floats(0, 1, exclude_max=True), st.integers(0, 255)
    )


@given(payload=mutated_payloads())
@settings(deadline=None, max_examples=300)
def test_a_hostile_writer_cannot_crash_the_reader(folder: Path, payload: bytes) -> None:
    assert read_bytes(folder, framed(payload) + SAMPLE[1]) is not None


def test_stretch_of_zeros_inside_a_file(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, b"".join(SAMPLE[:60]) + bytes(100_000) + b"".join(SAMPLE[60:]))
    assert reading is not None
    assert points(reading) == points(undamaged(tmp_path, MIXED))
    (problem,) = reading.problems
    assert problem.kind == "checksum" and "100000 bytes lost in 1 place" in problem.message
    assert problem.offset == ENDS[59]


def every_record(window: records.Window) -> tuple[np.ndarray, np.ndarray]:
    return records.merged([(window.starts, window.lengths), *map(records.spread, window.runs)])


@pytest.mark.parametrize("window", [64, 100, 1000, 5000])
def test_windows_of_any_size_give_the_same_records(tmp_path: Path, window: int) -> None:
    path = tmp_path / "log"
    noise = np.random.default_rng(0).bytes(777)
    path.write_bytes(b"".join([*SAMPLE[:50], noise, *SAMPLE[50:70], framed(noise * 20), *SAMPLE[70:], noise]))

    def payloads(size: int) -> tuple[list[tuple[int, bytes]], dict[str, object]]:
        damage, out = records.Damage(), []
        for window in records.read_windows(path.open("rb", buffering=0), damage, size):
            for start, length in zip(*every_record(window), strict=True):
                out.append((window.base + int(start), window.data[start : start + length].tobytes()))
        return out, vars(damage)

    assert payloads(window) == payloads(1 << 22)
    assert len(payloads(window)[0]) == len(SAMPLE) + 1


@pytest.mark.parametrize("window", [300, 3000])
@pytest.mark.parametrize("sample", [MIXED, REGULAR, IRREGULAR], ids=["mixed", "regular", "irregular"])
def test_windows_of_any_size_give_the_same_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Sample, window: int
) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(sample.whole)
    expected = tensorboard.read(path)
    assert points(expected)
    in_parts = partial(records.read_windows, window=window)
    monkeypatch.setattr(records, "read_windows", in_parts)
    same_readings(tensorboard.read(path), expected)


# --------------------------------------------------------------------------- the fast way and the slow


def slowly(monkeypatch: pytest.MonkeyPatch, path: Path) -> Reading:
    """Each record's checksum on its own, and each message parsed."""
    with monkeypatch.context() as patch:
        patch.setattr(event_forms, "take", lambda *given: 0)
        patch.setattr(event_forms, "learn", lambda window: None)
        patch.setattr(records, "_go_on", lambda frames: None)
        patch.setattr(records, "_start_run", lambda frames: False)
        patch.setattr(records, "_stretch_holds", lambda data, starts, lengths: False)
        patch.setattr(event_columns, "take", lambda window, starts, lengths, log: (starts, lengths))
        patch.setattr(event_columns, "take_one", lambda *record: False)
        patch.setattr(event_histograms, "take", lambda window, starts, lengths, log: (starts, lengths))
        return tensorboard.read(path)


def same_readings(fast: Reading, slow: Reading) -> None:
    same(fast, slow)
    assert (fast.problems, fast.texts, fast.hyperparameters) == (
        slow.problems,
        slow.texts,
        slow.hyperparameters,
    )
    assert [h.tag for h in fast.histograms] == [h.tag for h in slow.histograms]
    for left, right in zip(fast.histograms, slow.histograms, strict=True):
        for name in (f.name for f in dataclasses.fields(Histograms)):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


tags = st.sampled_from(["a", "b", "loss/train", "loss/valid", "x" * 60, "x" * 150, "é" * 3, ""])
floats32 = st.floats(width=32)


@st.composite
def values(draw: st.DrawFn) -> Summary.Value:
    tag, number = draw(tags), draw(floats32)
    metadata = draw(st.sampled_from([None, None, plugin("scalars"), plugin("")]))
    kind = draw(st.sampled_from(["simple", "content", "typed", "double", "histogram"]))
    if kind == "simple":
        return Summary.Value(tag=tag, simple_value=number, metadata=metadata)
    if kind == "histogram":
        edges = draw(st.lists(floats32, min_size=1, max_size=30))
        proto = HistogramProto(min=number, max=2, num=len(edges), bucket_limit=edges, bucket=edges[::-1])
        return Summary.Value(tag=tag, histo=proto, metadata=metadata)
    tensor = TensorProto(dtype=2 if kind == "double" else 1, tensor_shape=shape())
    if kind == "content":
        tensor.tensor_content = struct.pack("<f", number)
    elif kind == "typed":
        tensor.float_val.append(number)
    else:
        tensor.double_val.append(number)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


steps = st.one_of(
    st.integers(0, 300), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**14, 2**41, 2**42])
)
any_events = st.builds(
    lambda step, found, wall: event(step, *found, wall_time=wall),
    steps,
    st.lists(values(), min_size=1, max_size=2),
    st.floats(),
)


@given(block=st.lists(any_events, min_size=1, max_size=6), times=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_both_ways_give_the_same(folder: Path, block: list[Event], times: int, data: st.DataObject) -> None:
    messages = [item.SerializeToString() for item in block * times]
    content = bytearray(b"".join(map(framed, messages)))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] ^= 0x10
    path = folder / "events.out.tfevents.2.host"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        try:
            slow = slowly(patch, path)
        except IngestError as error:
            with pytest.raises(IngestError) as caught:
                tensorboard.read(path)
            assert str(caught.value) == str(error)
            return
    same_readings(tensorboard.read(path), slow)


@given(payload=mutated_payloads())
@settings(deadline=None, max_examples=200)
def test_both_ways_give_the_same_for_messages_in_odd_forms(folder: Path, payload: bytes) -> None:
    path = folder / "events.out.tfevents.3.host"
    path.write_bytes(framed(payload) * 40 + SAMPLE[1])
    with pytest.MonkeyPatch.context() as patch:
        slow = slowly(patch, path)
    same_readings(tensorboard.read(path), slow)


def test_keys_written_in_more_bytes_than_needed(tmp_path: Path) -> None:
    payload = event(200, scalar("loss", 2.0), wall_time=3.0).SerializeToString()
    assert payload[0] == 0x09 and payload[9] == 0x10
    for odd in (b"\x89\x00" + payload[1:], payload[:9] + b"\x90\x00" + payload[10:]):
        path = tmp_path / "events.out.tfevents.1.host"
        path.write_bytes(framed(odd) * 50)
        assert points(tensorboard.read(path)) == {"loss": [(200.0, 2.0, 3.0)] * 50}
    start = event(0, scalar("loss", 2.0), wall_time=3.0).SerializeToString()
    path.write_bytes(framed(b"\x89\x00" + start[1:]) * 50)
    assert points(tensorboard.read(path)) == {"loss": [(0.0, 2.0, 3.0)] * 50}


# --------------------------------------------------------------------------- files like one before


@contextlib.contextmanager
def familiar(folder: Path, events: list[Event]) -> Iterator[list[int]]:
    """Files laid out like these events have been read; where what is known of each further one ends."""
    path = folder / "events.out.tfevents.4.host"
    path.write_bytes(Sample(events).whole)
    ends: list[int] = []
    take = event_forms.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_forms, "FORMS", [])
        patch.setattr(event_forms, "OPENINGS", Counter())
        for _ in range(2):
            tensorboard.read(path)
        patch.setattr(event_forms, "take", lambda *given: ends.append(take(*given)) or ends[-1])
        yield ends


def read_both_ways(folder: Path, content: bytes) -> None:
    """Read a file, and compare with what reading each message gives."""
    path = folder / "events.out.tfevents.5.host"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        slow = slowly(patch, path)
    same_readings(tensorboard.read(path), slow)


def other_numbers(events: list[Event], seed: int, step: int = 0) -> list[Event]:
    """The same tags in the same order, with other times and values, ``step`` added to the steps."""
    rng = np.random.default_rng(seed)
    changed = []
    for item in events:
        other = Event.FromString(item.SerializeToString())
        other.wall_time = float(rng.normal())
        other.step = other.step + step if other.step else 0
        for value in other.summary.value:
            if value.HasField("simple_value"):
                value.simple_value = float(rng.choice([rng.normal(), np.nan, np.inf, 0.0]))
            elif value.tensor.tensor_content:
                value.tensor.tensor_content = rng.bytes(len(value.tensor.tensor_content))
        changed.append(other)
    return changed


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("make", [regular_events, irregular_events, tensor_events])
def test_a_file_like_one_before_is_read_whole(
    folder: Path, make: Callable[[], list[Event]], step: int
) -> None:
    with familiar(folder, make()) as ends:
        content = Sample(other_numbers(make(), 1)).whole
        read_both_ways(folder, content)
        assert ends == [len(content)]
        moved = Sample(other_numbers(make(), 2, step)).whole
        read_both_ways(folder, moved)


def test_only_what_is_known_is_taken_as_known(folder: Path) -> None:
    events = regular_events()
    with familiar(folder, events) as ends:
        longer = [*events, *other_numbers(events[1:], 3, 150), event(1, scalar("new", 1.0))]
        text = Summary.Value(
            tag="args", metadata=plugin("text"), tensor=TensorProto(dtype=7, string_val=[b"lr 0.1"])
        )
        shorter, more = Sample(events[:400]), Sample([*events, *longer[-30:]])
        for content in (shorter.whole, more.whole, Sample([version(), event(0, text), *events[1:]]).whole):
            read_both_ways(folder, content)
        assert ends == [len(shorter.whole), len(Sample(events).whole), ends[-1]] and ends[-1] > ends[-2]
        other = [event(i.step, *(scalar(v.tag.upper(), 1.0) for v in i.summary.value)) for i in events[1:]]
        read_both_ways(folder, Sample([version(), *other]).whole)
        read_both_ways(folder, Sample(longer).whole)
        assert ends[-2:] == [0, 0]


@given(data=st.data(), sample=st.sampled_from([REGULAR, IRREGULAR]))
@settings(deadline=None, max_examples=150)
def test_damage_in_a_file_like_one_before(folder: Path, data: st.DataObject, sample: Sample) -> None:
    events = regular_events() if sample is REGULAR else irregular_events()
    content = bytearray(sample.whole[: data.draw(st.integers(len(sample.whole) // 2, len(sample.whole)))])
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    with familiar(folder, events) as ends:
        read_both_ways(folder, bytes(content))
        assert len(ends) == 1


@pytest.mark.parametrize("at", [14, -6, -2], ids=["wall time", "value", "checksum"])
def test_the_same_bit_flipped_in_every_record_of_a_file_like_one_before(folder: Path, at: int) -> None:
    flipped = REGULAR.records[:1]
    for record in REGULAR.records[1:]:
        flipped.append(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :])
    with familiar(folder, regular_events()):
        read_both_ways(folder, b"".join(flipped))


def test_several_threads_read_files_like_ones_before(folder: Path, tmp_path: Path) -> None:
    paths = []
    for k in range(24):
        events = (regular_events, irregular_events, tensor_events)[k % 3]()
        paths.append(tmp_path / f"events.out.tfevents.{k}.host")
        paths[-1].write_bytes(Sample(other_numbers(events, k)).whole)
    with pytest.MonkeyPatch.context() as patch:
        slow = [slowly(patch, path) for path in paths]
    with familiar(folder, regular_events()), ThreadPoolExecutor(8) as pool:
        for fast, expected in zip(pool.map(tensorboard.read, paths * 3), slow * 3, strict=True):
            same_readings(fast, expected)


def test_files_unlike_each_other_teach_little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    form = event_forms._form
    monkeypatch.setattr(event_forms, "_form", lambda *given: learned.append(1) or form(*given))
    rng = np.random.default_rng(0)
    with familiar(folder, regular_events()):
        learned.clear()
        opening = irregular_events()[:30]
        for _ in range(20):
            rest = [event(int(k), scalar(f"tag{k}", 1.0)) for k in rng.integers(0, 99, 300)]
            read_both_ways(folder, Sample([*opening, *rest]).whole)
    assert len(learned) <= 5


@pytest.mark.filterwarnings("error")
def test_signalling_nan_is_a_nan(tmp_path: Path) -> None:
    payload = event(1, scalar("loss", 2.0)).SerializeToString()
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(framed(payload[:-4] + struct.pack("<I", 0x7F800001)) * 50)
    assert np.isnan(one(tensorboard.read(path)).values).all()


@pytest.mark.parametrize("order", ["one tag", "in turn", "at random"])
def test_regular_scalars_go_the_fast_way(
    log: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    count = {"one tag": 1, "in turn": 5, "at random": 40}[order]
    chosen = np.arange(3000) % count
    if order == "at random":
        np.random.default_rng(0).shuffle(chosen)
    path = log([version(), *(event(k, scalar(f"tag{tag}", k)) for k, tag in enumerate(chosen))])
    one_by_one = []
    take_one = event_columns.take_one
    monkeypatch.setattr(event_columns, "take_one", lambda *at: one_by_one.append(at) or take_one(*at))
    reading = tensorboard.read(path)
    assert sum(s.points for s in reading.series) == 3000
    assert len(one_by_one) < 40


# --------------------------------------------------------------------------- checksums


def test_crc32c_check_value() -> None:
    assert crc32c.crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=20))
@settings(deadline=None, max_examples=100)
def test_checksums_of_many_payloads(payloads: list[bytes]) -> None:
    data = np.frombuffer(bytes(64) + b"".join(payloads) + bytes(64), np.uint8).copy()
    lengths = np.array([len(p) for p in payloads], np.int64)
    starts = 64 + np.cumsum(lengths) - lengths
    found = crc32c.checksums(data, starts, lengths)
    assert found.tolist() == [masked_crc32c(p) for p in payloads]


def test_compiled_code_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crc32c.compiled() is not None  # a dependency; without it every other test here is slower
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    assert crc32c.compiled.__wrapped__() is None


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12), st.data())
def test_a_stretch_of_records_holds_only_if_each_does(payloads: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(bytes(records.MARGIN) + b"".join(map(framed, payloads)) + bytes(records.MARGIN))
    at, starts = records.MARGIN, []
    for payload in payloads:
        starts.append(at + records.HEADER)
        at += records.OVERHEAD + len(payload)
    places = np.array(starts), np.array([len(payload) for payload in payloads])

    def holds(content: bytes) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "FEW", 1)
            return records._stretch_holds(np.frombuffer(content, np.uint8).copy(), *places)

    assert holds(bytes(whole))
    record = data.draw(st.integers(0, len(payloads) - 1))
    whole[starts[record] + data.draw(st.integers(0, len(payloads[record]) + 3))] ^= data.draw(
        st.integers(1, 255)
    )
    assert not holds(bytes(whole))


@pytest.mark.parametrize("size", [4095, 4096, 70_000, 1_000_003])
def test_checksum_of_a_large_payload(size: int) -> None:
    payload = np.random.default_rng(size).bytes(size)
    data = np.frombuffer(bytes(64) + payload + bytes(64), np.uint8).copy()
    found = crc32c.checksums(data, np.array([64]), np.array([size]))
    assert found.tolist() == [crc32c.masked(crc32c.crc32c(payload))]


@pytest.mark.parametrize("size", [10, 20_000])
def test_checksums_are_the_same_without_compiled_code(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(0)
    payloads = [bytes(k) + rng.bytes(size) for k in range(30)]
    data = np.frombuffer(bytes(64) + b"".join(payloads) + bytes(64), np.uint8).copy()
    lengths = np.array([len(p) for p in payloads], np.int64)
    starts = 64 + np.cumsum(lengths) - lengths
    expected = [masked_crc32c(p) for p in payloads]
    assert crc32c.checksums(data, starts, lengths).tolist() == expected
    monkeypatch.setattr(crc32c, "compiled", lambda: None)
    assert crc32c.checksums(data, starts, lengths).tolist() == expected


# --------------------------------------------------------------------------- real logs


@pytest.mark.skipif(not REAL_LOGS.exists(), reason="the folder of real logs is not here")
def test_real_logs_agree_with_tensorboard() -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    files = sorted(p for p in REAL_LOGS.rglob("*tfevents*") if p.read_bytes()[:7] != b"version")
    assert files
    for path in files:
        theirs = EventAccumulator(str(path), size_guidance=NO_LIMIT, purge_orphaned_data=False).Reload()
        expected = {
            t: [(e.step, e.value, e.wall_time) for e in theirs.Scalars(t)] for t in theirs.Tags()["scalars"]
        }
        for tag in theirs.Tags()["tensors"]:
            if theirs.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                expected[tag] = [
                    (e.step, float(make_ndarray(e.tensor_proto)), e.wall_time) for e in theirs.Tensors(tag)
                ]
        ours = points(tensorboard.read(path))
        assert ours.keys() == expected.keys(), path
        for tag, rows in expected.items():
            np.testing.assert_array_equal(
                np.array(ours[tag]), np.array(rows, np.float64), err_msg=f"{path}: {tag}"
            )
