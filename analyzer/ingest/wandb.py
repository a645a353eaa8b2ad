"""Weights & Biases runs on disk: the ``.wandb`` transaction log, decoded without the wandb package.

The file is a LevelDB log (32 KiB blocks of checksummed fragments) of protocol-buffer records,
see https://github.com/google/leveldb/blob/main/doc/log_format.md and ``wandb_internal.proto``
in https://github.com/wandb/wandb. W&B's checksum is plain CRC-32, not LevelDB's masked CRC-32C.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.errors import IngestError
from analyzer.ingest.json_rows import Rows, add_rows, flatten, scalars, table_series
from analyzer.model import Problem, Reading, Scalar

NAME = "wandb"
SUMMARY = "Weights & Biases local runs (run-*.wandb, wandb-metadata.json)"
ORDER = 10

MAGIC = b":W&B\xe1\xbe\x00"
BLOCK = 32768
HEADER = 7
MAX_RECORD = 256 << 20
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
RUN_FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-\S+")

# Field numbers of wandb_internal.proto.
RECORD_HISTORY, RECORD_CONFIG, RECORD_RUN, RECORD_EXIT = 2, 4, 17, 18
ITEM_KEY, ITEM_NESTED_KEY, ITEM_VALUE = 1, 2, 16
RUN_CONFIG, RUN_DISPLAY_NAME = 4, 8

Field = tuple[int, int | bytes]


@dataclass
class Contents:
    """What the records of a file add up to."""

    table: Rows = field(default_factory=Rows)
    config: dict[str, object] = field(default_factory=dict)
    names: dict[str, Scalar] = field(default_factory=dict)
    exit_code: int | None = None
    undecoded: int = 0


@dataclass
class Damage:
    """Where the log could not be followed."""

    bad: int = 0
    first: int = 0  # byte offset
    cut: bool = False  # the last record breaks off


def claims(path: Path, head: bytes) -> bool:
    """A ``.wandb`` file, or the metadata file of a run folder."""
    return path.suffix == ".wandb" or head.startswith(MAGIC[:6]) or path.name == "wandb-metadata.json"


def run_root(path: Path) -> Path:
    """The ``run-…`` folder around any file of a W&B run, ``files/*`` included; else the file's folder."""
    for parent in path.parents:
        if RUN_FOLDER.fullmatch(parent.name):
            return parent
    return path.parent


def read(path: Path) -> Reading:
    """History as series, config as hyperparameters, the exit code as a problem unless it is 0."""
    if path.name == "wandb-metadata.json":
        return _metadata(path)
    contents, damage = Contents(), Damage()
    add_rows(contents.table, _history(_bytes(path), contents, damage))
    problems = tuple(_problems(str(path), contents, damage))
    if not contents.table.count and not contents.config:
        raise IngestError(
            str(path), "no history and no configuration in it", "damaged" if damage.bad else "empty"
        )
    return Reading(
        series=table_series(contents.table, str(path)) if contents.table.count else (),
        hyperparameters={**contents.names, **scalars(contents.config)},
        problems=problems,
    )


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error
    if raw.startswith(b"version https://git-lfs"):
        raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
    if not raw:
        raise IngestError(str(path), "an empty file", "empty")
    if not raw.startswith(MAGIC):
        raise IngestError(str(path), "does not begin as a .wandb file does", "damaged", 0)
    return raw


# ---------------------------------------------------------------------------------- framing


def _records(raw: bytes, damage: Damage) -> Iterator[bytes]:
    """Whole records; a damaged fragment costs its own record, and a broken header the rest of its block."""
    parts: list[bytes] | None = None
    size = 0
    for kind, data in _fragments(raw, damage):
        if kind == FULL:
            yield data
            parts = None
        elif kind == FIRST:
            parts, size = [data], len(data)
        elif parts is not None:
            parts.append(data)
            size += len(data)
            if size > MAX_RECORD or kind == 0:
                parts = None
            elif kind == LAST:
                yield b"".join(parts)
                parts = None
    if parts is not None:
        damage.cut = True


def _fragments(raw: bytes, damage: Damage) -> Iterator[tuple[int, bytes]]:
    """Type and data of each fragment; type 0 stands for one that was lost."""
    at = len(MAGIC)
    while at < len(raw):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        if at + HEADER > len(raw):
            damage.cut = True
            return
        checksum, length, kind = struct.unpack_from("<IHB", raw, at)
        if not any(raw[at : at + room]):  # zeros to the end of the block: never written
            at += room
            continue
        data = raw[at + HEADER : at + HEADER + length]
        if FULL <= kind <= LAST and at + HEADER + length > len(raw):
            damage.cut = True
            return
        whole = FULL <= kind <= LAST and length <= room - HEADER
        if whole and zlib.crc32(data, zlib.crc32(bytes([kind]))) == checksum:
            yield kind, data
            at += HEADER + length
            continue
        if not damage.bad:
            damage.first = at
        damage.bad += 1
        yield 0, b""
        at += _next_fragment(raw, at, room, HEADER + length if whole else room)


def _next_fragment(raw: bytes, at: int, room: int, length: int) -> int:
    """How far on to go after damage: past the fragment if another header follows it, else past the block."""
    follower = at + length
    if length < room - HEADER and follower + HEADER <= len(raw):
        _, size, kind = struct.unpack_from("<IHB", raw, follower)
        if FULL <= kind <= LAST and size <= room - length - HEADER:
            return length
    return room


# ---------------------------------------------------------------------------------- records


def _history(raw: bytes, contents: Contents, damage: Damage) -> Iterator[dict[str, object]]:
    """The rows of the history; what other records say is added to what is known of the run."""
    for record in _records(raw, damage):
        try:
            yield from _take(record, contents)
        except (ValueError, IndexError):
            contents.undecoded += 1


def _take(record: bytes, contents: Contents) -> Iterator[dict[str, object]]:
    """One record: a row, or something about the run. Raises ValueError or IndexError on broken encoding."""
    for number, value in _fields(record):
        if not isinstance(value, bytes):
            continue
        if number == RECORD_HISTORY:
            row = dict(_items(value, 1))
            steps = [
                _varints(part, 1) for key, part in _fields(value) if key == 2 and isinstance(part, bytes)
            ]
            if steps:
                row.setdefault("_step", next(iter(steps[-1]), 0))
            yield row
        elif number == RECORD_CONFIG:
            _update_config(value, contents)
        elif number == RECORD_RUN:
            _take_run(value, contents)
        elif number == RECORD_EXIT:
            contents.exit_code = next(iter(_varints(value, 1)), 0)


def _take_run(value: bytes, contents: Contents) -> None:
    for number, part in _fields(value):
        if number == RUN_CONFIG and isinstance(part, bytes):
            _update_config(part, contents)
        elif number == RUN_DISPLAY_NAME and isinstance(part, bytes):
            contents.names["wandb.run_name"] = part.decode("utf-8", "replace")[:500]


def _update_config(value: bytes, contents: Contents) -> None:
    for name, setting in _items(value, 1):
        if not name.startswith("_wandb"):
            contents.config[name.replace("/", ".")] = setting


def _items(message: bytes, number: int) -> Iterator[tuple[str, object]]:
    """Name and decoded value of the key-value items stored under a field of a message."""
    for key, item in _fields(message):
        if key != number or not isinstance(item, bytes):
            continue
        names: list[str] = []
        value = b"null"
        for inner, part in _fields(item):
            if not isinstance(part, bytes):
                continue
            if inner in (ITEM_KEY, ITEM_NESTED_KEY):
                names.append(part.decode("utf-8", "replace"))
            elif inner == ITEM_VALUE:
                value = part
        try:
            decoded = json.loads(value)
        except RecursionError:
            continue
        yield "/".join(name for name in names if name), decoded


def _fields(message: bytes) -> Iterator[Field]:
    """Number and value of each field of a protocol-buffer message: integers and byte strings."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif wire == 2:
            size, at = _varint(message, at)
            if size > end - at:
                raise ValueError("a field reaches past its message")
            yield tag >> 3, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A base-128 integer of at most ten bytes, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _varints(message: bytes, number: int) -> list[int]:
    """Signed values of an integer field."""
    found = [value for key, value in _fields(message) if key == number and isinstance(value, int)]
    return [value - (1 << 64) if value >= 1 << 63 else value for value in found]


def _problems(path: str, contents: Contents, damage: Damage) -> Iterator[Problem]:
    if damage.bad:
        yield Problem(path, "checksum", f"{damage.bad} damaged stretches skipped", damage.first)
    if damage.cut:
        yield Problem(path, "truncated", "the last record breaks off")
    if contents.undecoded:
        yield Problem(path, "damaged", f"{contents.undecoded} records could not be decoded")
    if contents.exit_code:
        yield Problem(path, "crashed", f"the run ended with exit code {contents.exit_code}")
    elif contents.exit_code is None and not damage.cut:
        yield Problem(path, "truncated", "no end of run recorded: it was killed, or is still going")


# ---------------------------------------------------------------------------------- metadata


def _metadata(path: Path) -> Reading:
    """The command line of ``wandb-metadata.json``, its ``--name value`` arguments as hyperparameters."""
    from analyzer.ingest.json_history import load

    data, problems = load(path)
    if not isinstance(data, dict):
        raise IngestError(str(path), "not a mapping", "damaged")
    kept: dict[str, Scalar] = {}
    for name, value in flatten(data, "."):
        if name in {"program", "python", "gpu", "gpu_count", "startedAt"} and isinstance(
            value, str | int | float
        ):
            kept[f"wandb.{name}"] = value
    args = data.get("args")
    if isinstance(args, list):
        kept.update(_arguments([str(arg) for arg in args[:1000]]))
    return Reading(hyperparameters=kept, problems=tuple(problems))


def _arguments(args: list[str]) -> dict[str, Scalar]:
    """``--lr 0.1`` and ``--lr=0.1`` as pairs; a flag without a value is True."""
    pairs: dict[str, Scalar] = {}
    for i, arg in enumerate(args):
        if not arg.startswith("--"):
            continue
        name, equals, value = arg[2:].partition("=")
        if not equals and i + 1 < len(args) and not args[i + 1].startswith("--"):
            value, equals = args[i + 1], "="
        pairs[name] = _scalar(value) if equals else True
    return pairs


def _scalar(text: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text[:500]
