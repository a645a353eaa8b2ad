"""The .wandb transaction log: framing, records, and what damage costs."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.errors import IngestError
from analyzer.ingest import wandb
from analyzer.model import Reading, Series

HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def item(name: str, value: object, nested: bool = False) -> bytes:
    keys = (
        b"".join(message(2, part.encode()) for part in name.split("/"))
        if nested
        else message(1, name.encode())
    )
    return message(1, keys + message(16, json.dumps(value).encode()))


def history(nested: bool = False, **values: object) -> bytes:
    return message(2, b"".join(item(name, value, nested) for name, value in values.items()))


def exit_record(code: int) -> bytes:
    return message(18, varint(1 << 3) + varint(code & (1 << 64) - 1))


def frame(records: list[bytes]) -> bytes:
    """Records in 32 KiB blocks, as LevelDB's log writer lays them out."""
    out = bytearray(HEADER)
    for record in records:
        first = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            part, record = record[: room - 7], record[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not record]
            crc = zlib.crc32(part, zlib.crc32(bytes([kind])))
            out += struct.pack("<IHB", crc, len(part), kind) + part
            first = False
            if not record:
                break
    return bytes(out)


def run(steps: int, padding: int = 0) -> list[bytes]:
    records = [message(17, message(8, b"my run") + message(4, item("lr", 0.1) + item("_wandb", {"x": 1})))]
    records += [message(4, item("optim/momentum", 0.9, nested=True))]
    for step in range(steps):
        records.append(history(_step=step, _timestamp=1.7e9 + step, loss=1 / (step + 1), note="x" * padding))
    return [*records, exit_record(0)]


def read(tmp_path: Path, raw: bytes) -> Reading:
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(raw)
    return wandb.read(path)


def loss_of(reading: Reading) -> Series:
    return next(series for series in reading.series if series.tag == "loss")


def test_history_config_and_name(tmp_path: Path) -> None:
    reading = read(tmp_path, frame(run(3)))
    loss = loss_of(reading)
    assert loss.steps.tolist() == [0, 1, 2] and loss.values.tolist() == [1, 1 / 2, 1 / 3]
    assert loss.wall_times is not None and loss.wall_times[0] == 1.7e9
    assert reading.hyperparameters == {"wandb.run_name": "my run", "lr": 0.1, "optim.momentum": 0.9}
    assert not reading.problems


def test_records_that_span_blocks(tmp_path: Path) -> None:
    reading = read(tmp_path, frame(run(20, padding=50_000)))
    assert loss_of(reading).steps.tolist() == list(range(20))
    assert not reading.problems


def test_nested_keys_and_history_step(tmp_path: Path) -> None:
    step = message(2, varint(1 << 3) + varint(7))
    record = message(2, message(1, message(2, b"val") + message(2, b"loss") + message(16, b"0.5")) + step)
    (series,) = read(tmp_path, frame([record, exit_record(0)])).series
    assert (series.tag, series.steps.tolist(), series.values.tolist()) == ("val/loss", [7], [0.5])


def test_nan_and_media_values(tmp_path: Path) -> None:
    records = [history(_step=0, loss=float("nan"), img={"_type": "image-file", "size": 3}, acc="NaN")]
    reading = read(tmp_path, frame([*records, exit_record(0)]))
    assert {series.tag for series in reading.series} == {"loss", "acc"}
    assert all(series.values[0] != series.values[0] for series in reading.series)


def test_a_flipped_byte_costs_one_record(tmp_path: Path) -> None:
    raw = bytearray(frame(run(50)))
    at = raw.index(b"_timestamp", len(raw) // 2)
    raw[at] ^= 0xFF
    reading = read(tmp_path, bytes(raw))
    assert loss_of(reading).points == 49
    (problem,) = reading.problems
    assert problem.kind == "checksum" and problem.offset is not None and problem.offset < at


def test_damage_in_one_block_spares_the_others(tmp_path: Path) -> None:
    raw = bytearray(frame(run(100, padding=2000)))
    raw[32768 + 5000 : 32768 + 9000] = b"\xff" * 4000
    loss = loss_of(read(tmp_path, bytes(raw)))
    assert 80 <= loss.points < 100
    assert loss.steps[0] == 0 and loss.steps[-1] == 99


def test_a_file_cut_short_keeps_what_was_written(tmp_path: Path) -> None:
    raw = frame(run(50))
    reading = read(tmp_path, raw[: len(raw) // 2])
    assert 10 < loss_of(reading).points < 40
    assert [problem.kind for problem in reading.problems] == ["truncated"]


@pytest.mark.parametrize(("code", "word"), [(1, "exit code 1"), (-1, "exit code -1"), (255, "exit code 255")])
def test_an_exit_code_other_than_zero_is_a_problem(tmp_path: Path, code: int, word: str) -> None:
    (problem,) = read(tmp_path, frame([*run(2)[:-1], exit_record(code)])).problems
    assert problem.kind == "crashed" and word in problem.message


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer"),
        (b"something else", "damaged"),
        (HEADER, "empty"),
    ],
)
def test_what_gives_nothing_says_why(tmp_path: Path, raw: bytes, kind: str) -> None:
    with pytest.raises(IngestError) as caught:
        read(tmp_path, raw)
    assert caught.value.kind == kind


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 900))
def test_no_bytes_raise_anything_but_an_ingest_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    raw = frame(run(10))
    path = tmp_path_factory.mktemp("w") / "run-abc.wandb"
    for content in (HEADER + junk, raw[:at] + junk + raw[at + len(junk) :], frame([junk])):
        path.write_bytes(content)
        try:
            wandb.read(path)
        except IngestError as error:
            assert str(path) in str(error)


def test_files_of_a_run_belong_to_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "wandb" / "run-20240101_101010-abc"
    assert wandb.run_root(folder / "files" / "output.log") == folder
    assert wandb.run_root(folder / "run-abc.wandb") == folder
    assert wandb.run_root(tmp_path / "offline-run-20240101_101010-abc" / "x.wandb").name.startswith("offline")
    assert wandb.run_root(tmp_path / "log.txt") == tmp_path


def test_command_line_arguments_of_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "wandb-metadata.json"
    args = ["--lr", "0.1", "--epochs=3", "--amp", "--name", "x y"]
    path.write_text(json.dumps({"program": "train.py", "args": args, "email": "someone@example.org"}))
    assert wandb.claims(path, b"{")
    assert wandb.read(path).hyperparameters == {
        "wandb.program": "train.py",
        "lr": 0.1,
        "epochs": 3,
        "amp": True,
        "name": "x y",
    }
