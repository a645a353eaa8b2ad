"""PyTorch checkpoints before 1.6, and plain pickles of weights.

The legacy file is five pickles in a row (magic number, protocol, system, object, storage keys)
and then, for each key, eight bytes of element count and the raw elements.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.checkpoints import torch_objects
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickle_machine import Use
from analyzer.checkpoints.pickles import Loaded, load
from analyzer.checkpoints.regions import DTYPES, Region
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.torch_objects import Storage
from analyzer.errors import IngestError
from analyzer.model import Checkpoint

NAME = "torch-legacy"
SUMMARY = "PyTorch checkpoints in the format before 1.6, and plain pickles of weights"
ORDER = 30
MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = MAGIC.to_bytes(10, "little")
_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".tar", ".torch"})
_FIRST_READ = 1 << 20
MAX_PICKLES = 1 << 28


def claims(path: Path, head: bytes) -> bool:
    """Torch's magic number, or a pickle or old tar archive under a checkpoint's name."""
    if _MAGIC_BYTES in head[:32]:
        return True
    if path.suffix.lower() not in _SUFFIXES:
        return False
    return _is_pickle(head) or head[:1] in (b"(", b"c", b"]", b"}") or _is_old_tar(path, head)


def reads(path: Path, head: bytes) -> bool:
    """Any pickle, where it is asked for."""
    return _is_pickle(head)


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _is_old_tar(path: Path, head: bytes) -> bool:
    return head[257:262] == b"ustar" and path.suffix.lower() != ".tar"


def open(path: Path) -> Checkpoint:
    """Index of the checkpoint; no tensor is read. Raises IngestError."""
    found, format = _found(path)
    refuse_empty(found)
    return assemble(found, format)


def find(path: Path) -> Found:
    """What is in the file."""
    return _found(path)[0]


def _found(path: Path) -> tuple[Found, str]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = file.read(min(size, _FIRST_READ))
        if content[257:262] == b"ustar":
            message = "PyTorch's tar format of 2016: load and save it again with a torch before 2.0"
            raise IngestError(str(path), message, "unsupported")
        while True:
            try:
                return _read(path, content, size)
            except IngestError as error:
                if error.kind != "truncated" or len(content) >= min(size, MAX_PICKLES):
                    raise
                content += file.read(3 * len(content))


@dataclass(slots=True)
class _Legacy:
    """The storages asked for; where they lie is known only behind the last pickle."""

    storages: dict[str, Storage] = field(default_factory=dict)
    views: list[tuple[Storage, Storage]] = field(default_factory=list)

    def storage(self, key: str, dtype: str, elements: int) -> Storage:
        width = DTYPES[dtype].size if dtype in DTYPES else 1
        return self.storages.setdefault(key, Storage(key, dtype, elements * width))


def _read(path: Path, content: bytes, size: int) -> tuple[Found, str]:
    first = load(content, builds=torch_objects.BUILDS, path=str(path))
    if first.value != MAGIC:
        return gather(first, str(path)), "pickle"
    legacy = _Legacy()
    callback = torch_objects.persistent_storages(legacy.storage)
    at, values, uses = first.consumed, [], list[Use]()
    for _ in range(4):
        loaded = load(content, persistent=callback, builds=torch_objects.BUILDS, path=str(path), start=at)
        at += loaded.consumed
        values.append(loaded.value)
        uses += loaded.references
    _protocol, system, value, keys = values
    _place(
        path,
        legacy,
        keys,
        at,
        size,
        big_endian=isinstance(system, dict) and not system.get("little_endian", True),
    )
    return gather(Loaded(value, tuple(uses), at), str(path)), NAME


def _place(path: Path, legacy: _Legacy, keys: object, at: int, size: int, *, big_endian: bool) -> None:
    """Walks over the storages in the file's order; what lies behind a cut is marked as missing."""
    for key in keys if isinstance(keys, list) else ():
        storage = legacy.storages.get(key) if isinstance(key, str) else None
        if storage is None or (storage.dtype and storage.dtype not in DTYPES):
            break  # its size is not known, so neither is where the next one begins
        if at + 8 + storage.size > size:
            storage.fault = f"file ends {at + 8 + storage.size - size} bytes before its storage does"
            break
        storage.region = Region(str(path), at + 8, storage.size, size)
        storage.big_endian = big_endian
        at += 8 + storage.size
