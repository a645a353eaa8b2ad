"""The pickle interpreter: right on honest pickles, inert and frugal on hostile ones."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pickle
import pickletools
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hostile import hostile_pickles as hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.checkpoints.pickle_harm import harmful
from analyzer.checkpoints.pickle_machine import Record, Reference
from analyzer.checkpoints.pickles import load, read_pickle
from analyzer.errors import IngestError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(plain, st.sampled_from(PROTOCOLS))
@settings(max_examples=200, deadline=None)
def test_plain_values_come_back_as_pickle_loads_them(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "x.pkl") == value


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_value_or_an_ingest_error(data: bytes) -> None:
    try:
        load(data)
    except IngestError as error:
        assert error.kind in {"damaged", "truncated", "unsafe", "too-large", "unsupported"}


@given(plain, st.sampled_from(PROTOCOLS), st.data())
@settings(max_examples=200, deadline=None)
def test_a_cut_pickle_is_an_ingest_error(value: object, protocol: int, data: st.DataObject) -> None:
    whole = pickle.dumps(value, protocol)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(IngestError) as caught:
        load(cut)
    assert caught.value.kind in {"truncated", "damaged"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_numbers_and_times(protocol: int) -> None:
    value = {
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "default": collections.defaultdict(list, {"k": [1]}),
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "deque": collections.deque([1, 2]),
        "big": [2**70, -(2**70), 255, 65_535, -1, 2**31],
        "complex": 1 + 2j,
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "time": datetime.datetime(2024, 2, 29, 12, 30),
    }
    got = read_pickle(pickle.dumps(value, protocol), "x")
    assert isinstance(got, dict)
    assert got.pop("time") == "2024-02-29T12:30:00"
    assert got.pop("deque") == [1, 2]
    assert list(got["ordered"]) == ["b", "a"]
    value.pop("time")
    value.pop("deque")
    assert got == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array([True, False]),
        np.array(["ab", "c"]),
        np.array(3.5, dtype=np.float16),
        np.zeros((0, 4), dtype=np.uint8),
        np.array([1 + 2j], dtype=np.complex64),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_numpy_arrays_are_rebuilt_and_stay_shared(array: np.ndarray, protocol: int) -> None:
    got = read_pickle(pickle.dumps([array, array], protocol), "x")
    assert isinstance(got, list)
    np.testing.assert_array_equal(got[0], array)
    assert got[0].dtype == array.dtype
    assert got[1] is got[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scalar", [np.float32(0.1), np.int64(-3), np.bool_(True), np.float64("nan")])
def test_numpy_scalars_become_python_numbers(scalar: np.generic, protocol: int) -> None:
    got = read_pickle(pickle.dumps(scalar, protocol), "x")
    assert type(got) in (int, float, bool)
    np.testing.assert_equal(got, scalar.item())


def test_object_arrays_stay_inert() -> None:
    got = read_pickle(pickle.dumps(np.array([{"a": 1}], dtype=object)), "x")
    assert isinstance(got, Record)


def test_a_python2_string_is_text_or_else_its_bytes() -> None:
    assert read_pickle(b"U\x03abc.", "x") == "abc"
    assert read_pickle(b"U\x02\xff\xfe.", "x") == b"\xff\xfe"


class Plain:
    def __init__(self) -> None:
        self.rate = 0.1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_becomes_a_record_with_its_state(protocol: int) -> None:
    got = read_pickle(pickle.dumps(Plain(), protocol), "x")
    assert isinstance(got, Record)
    assert isinstance(got.reference, Reference)
    assert got.reference.name == "Plain"
    assert got.state == {"rate": 0.1}


def test_known_harmless_objects_are_records_too() -> None:
    got = read_pickle(pickle.dumps({"args": argparse.Namespace(lr=0.1), "f": Fraction(1, 3)}), "x")
    assert isinstance(got, dict)
    assert got["args"].state == {"lr": 0.1}
    assert str(got["f"].reference) == "fractions.Fraction"


class Stack(list):  # type: ignore[type-arg]
    pass


def test_what_would_be_appended_is_kept() -> None:
    got = read_pickle(pickle.dumps(Stack([1, 2]), 2), "x")
    assert isinstance(got, Record)
    assert got.items == [1, 2]


def test_persistent_ids_go_to_the_callback() -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("id", 7) if isinstance(obj, Fraction) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump([Fraction(1, 2), Fraction(1, 2)])
    asked: list[object] = []
    load(buffer.getvalue(), persistent=lambda identity: asked.append(identity) or len(asked))
    assert asked == [("id", 7), ("id", 7)]


def test_consumed_tells_where_the_next_pickle_begins() -> None:
    first = pickle.dumps([1, 2])
    assert load(first + pickle.dumps("next")).consumed == len(first)


def test_every_opcode_of_the_standard_has_a_handler() -> None:
    from analyzer.checkpoints.pickle_opcodes import HANDLERS

    missing = [op.name for op in pickletools.opcodes if HANDLERS[ord(op.code)] is None]
    assert missing == []


def test_references_name_what_would_be_imported_and_called_and_where() -> None:
    data = pickle.dumps(datetime.timedelta(1), 2)
    uses = {(str(use.reference), use.opcode): use.offset for use in load(data).references}
    assert set(uses) == {("datetime.timedelta", "GLOBAL"), ("datetime.timedelta", "REDUCE")}
    for (_, opcode), offset in uses.items():
        assert data[offset : offset + 1] == {"GLOBAL": b"c", "REDUCE": b"R"}[opcode]


# --- hostile -----------------------------------------------------------------------------------------

RUNNERS = [
    hostile.evaluates_code,
    hostile.runs_by_inst,
    hostile.runs_by_obj,
    hostile.runs_by_build,
    hostile.runs_through_getattr,
    hostile.runs_through_newobj_ex,
]


@pytest.mark.parametrize("make", RUNNERS, ids=lambda make: make.__name__)
def test_nothing_runs_and_the_message_names_it(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    canary = tmp_path / "canary"
    with pytest.raises(IngestError) as caught:
        read_pickle(make(canary), "evil.pkl")
    assert caught.value.kind == "unsafe"
    assert caught.value.offset is not None
    assert "nothing was run" in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_os_system_does_not_run_but_would_have(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = hostile.runs_a_command(canary, protocol)
    loaded = load(data)
    assert not canary.exists()
    assert {harm.use.reference.name for harm in harmful(loaded.references)} == {"system"}
    pickle.loads(data)  # noqa: S301 the proof that the file is armed
    assert canary.exists()


EXHAUSTING = {
    "nested lists": (hostile.nested_lists(100_000), "unsafe"),
    "nested tuple key": (hostile.nested_tuples_as_key(100_000), "unsafe"),
    "shared tuple key": (hostile.shared_tuples_as_key(200), "unsafe"),
    "copies": (hostile.copies_again_and_again(1_000), "too-large"),
    "long": (hostile.huge_long(), "too-large"),
    "decimal": (hostile.huge_decimal(), "too-large"),
    "binbytes": (hostile.huge_length(b"B", 4), "truncated"),
    "binbytes8": (hostile.huge_length(b"\x8e", 8), "truncated"),
    "bytearray8": (hostile.huge_length(b"\x96", 8), "truncated"),
    "binunicode8": (hostile.huge_length(b"\x8d", 8), "truncated"),
    "frame": (hostile.huge_frame(), "truncated"),
    "marks": (hostile.many_marks(100_000), "unsafe"),
    "colliding keys": (hostile.colliding_keys(20_000), "damaged"),
    "array shape": (hostile.array_of_lying_shape(), "damaged"),
    "unknown opcode": (hostile.unknown_opcode(), "damaged"),
    "underflow": (hostile.underflow(), "damaged"),
    "below a mark": (hostile.pops_below_a_mark(), "damaged"),
    "text memo index": (b"p" + b"9" * 30 + b"\n.", "damaged"),
    "empty": (b"", "truncated"),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_exhausting_pickles_end_early_with_little_memory(name: str) -> None:
    data, kind = EXHAUSTING[name]
    tracemalloc.start()
    try:
        with pytest.raises(IngestError) as caught:
            load(data, path="evil.pkl")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.kind == kind
    assert str(caught.value).startswith("evil.pkl: pickle")
    assert peak < 200 * max(len(data), 200_000)


def test_too_many_containers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.checkpoints.pickles.MAX_CONTAINERS", 10_000)
    load(hostile.many_containers(9_000))
    with pytest.raises(IngestError) as caught:
        load(hostile.many_containers(11_000))
    assert caught.value.kind == "too-large"


def test_too_many_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.checkpoints.pickles.MAX_OPCODES", 1_000)
    load(b"N" + b"20" * 400 + b".")
    with pytest.raises(IngestError) as caught:
        load(b"N" + b"20" * 600 + b".")
    assert caught.value.kind == "too-large"


def test_a_memo_index_takes_no_room() -> None:
    tracemalloc.start()
    load(hostile.huge_memo_index())
    load(hostile.huge_text_memo_index())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_list_within_itself_is_read() -> None:
    value = load(hostile.recursive_list()).value
    assert isinstance(value, list)
    assert value[0] is value


def test_shared_lists_are_not_multiplied() -> None:
    tracemalloc.start()
    load(hostile.doubled_lists(200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "data", [hostile.bytes_of_length(), hostile.dtype_of_objects()], ids=["bytes", "objects"]
)
def test_unlisted_reconstructions_stay_inert(data: bytes) -> None:
    assert isinstance(load(data).value, Record)


def test_a_stream_is_read_like_bytes() -> None:
    assert read_pickle(io.BytesIO(pickle.dumps([1])), "x") == [1]


def test_no_module_is_imported_for_a_reference() -> None:
    import sys

    name = "antigravity"
    assert name not in sys.modules
    load(b"c" + name.encode() + b"\nfly\n.")
    assert name not in sys.modules
    assert os.environ.get("PATH")


@pytest.mark.parametrize(
    ("data", "opcode", "at"),
    [
        (b"(S'x'\nios\nsystem\n.", b"i", 6),
        (b"\x80\x02N0cos\nsystem\n.", b"c", 4),
        (b"cos\nsystem\n(S'x'\ntR.", b"R", 18),
        (b"\x80\x02N0\x82\x07.", b"\x82", 4),
    ],
    ids=["INST", "GLOBAL", "REDUCE", "EXT1"],
)
def test_evidence_names_the_byte_of_the_opcode(data: bytes, opcode: bytes, at: int) -> None:
    assert data[at : at + 1] == opcode
    assert at in {use.offset for use in load(data).references}


def test_a_pickle_behind_others_tells_offsets_in_the_file() -> None:
    first, second = pickle.dumps({"a": 1}, 2), b"cos\nsystem\n."
    loaded = load(first + second, start=len(first))
    assert loaded.consumed == len(second)
    assert [use.offset for use in loaded.references] == [len(first)]


def test_newobj_ex_without_keywords_is_newobj() -> None:
    """Protocol 4 writes some plain data so: it is rebuilt as from any other opcode."""
    data = b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)}\x92."
    assert read_pickle(data, "x") == {}
