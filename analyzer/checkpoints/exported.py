"""Programs of ``torch.export`` (.pt2): the weights' bytes and a JSON of what they are.

Since PyTorch 2.8 each weight is a raw file in the zip, described by ``model_weights_config.json``;
before, the state dict was a ``torch.save`` within the zip. The graph is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from analyzer.checkpoints import torch_zip
from analyzer.checkpoints.entries import Found
from analyzer.checkpoints.pickles import Loaded
from analyzer.checkpoints.state import assemble, gather, refuse_empty
from analyzer.checkpoints.torch_objects import Storage, StoredTensor
from analyzer.checkpoints.zips import (
    Member,
    first_name,
    member_region,
    nested_directory,
    read_directory,
    read_member,
)
from analyzer.errors import IngestError
from analyzer.model import Checkpoint

NAME = "torch-export"
SUMMARY = "programs of torch.export (.pt2): weights and constants"
ORDER = 17
MAX_CONFIG = 1 << 26
# numbers of torch's ScalarType as the export schema has them
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
}  # fmt: skip


def claims(path: Path, head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04") and (
        path.suffix.lower() == ".pt2" or "/data/weights/" in first_name(head)
    )


def open(path: Path) -> Checkpoint:
    """Index of the program's weights; none is read. Raises IngestError."""
    found = find(path)
    refuse_empty(found)
    return assemble(found, NAME)


def find(path: Path) -> Found:
    members = read_directory(path)
    old = next((name for name in members if name.endswith("serialized_state_dict.pt")), None)
    if old is not None:
        start, inner = nested_directory(path, members[old])
        archive = torch_zip.find_archive(inner)
        if archive is None:
            raise IngestError(str(path), f"no data.pkl in {old[-60:]}", "damaged", start)
        return gather(torch_zip.load_archive(path, inner, archive), str(path))
    configs = [name for name in members if name.endswith(("_weights_config.json", "_constants_config.json"))]
    if not configs:
        raise IngestError(str(path), "no weights in it: a compiled program without them", "unsupported")
    found = Found(str(path))
    values: dict[object, object] = {}
    for name in configs:
        folder = name.rpartition("/")[0]
        for tensor, description in _config(path, members[name]).items():
            try:
                values[tensor] = _tensor(path, members, folder, description)
            except (ValueError, IngestError) as error:
                found.fault("damaged", f"tensor {tensor[:80]!r} not read: {error}")
    whole = gather(Loaded(values, (), 0), str(path))
    whole.problems += found.problems
    return whole


def _config(path: Path, member: Member) -> Mapping[str, object]:
    try:
        config = json.loads(read_member(path, member, MAX_CONFIG))["config"]
    except (ValueError, RecursionError, LookupError, TypeError):
        raise IngestError(str(path), f"{member.name[-60:]!r} is not the JSON of weights", "damaged") from None
    return config if isinstance(config, dict) else {}


def _tensor(path: Path, members: Mapping[str, Member], folder: str, description: object) -> StoredTensor:
    """Raises ValueError where the description does not hold."""
    facts = description if isinstance(description, dict) else {}
    meta = facts.get("tensor_meta")
    if not isinstance(meta, dict) or facts.get("use_pickle"):
        raise ValueError("an object, not a plain tensor")
    dtype = _DTYPES.get(meta["dtype"]) if isinstance(meta.get("dtype"), int) else None
    member = members.get(f"{folder}/{facts.get('path_name')}")
    if dtype is None or member is None:
        raise ValueError("its element type is not known" if member else "its bytes are not in the archive")
    shape, strides = _integers(meta.get("sizes")), _integers(meta.get("strides"))
    (offset,) = _integers([meta.get("storage_offset")])
    if len(shape) != len(strides):
        raise ValueError("more sizes than strides")
    storage = Storage(member.name, dtype, member.size, member_region(path, member))
    return StoredTensor(storage, dtype, offset, shape, strides, bool(facts.get("is_param")))


def _integers(values: object) -> tuple[int, ...]:
    numbers = (
        [v.get("as_int") if isinstance(v, dict) else None for v in values]
        if isinstance(values, list)
        else [None]
    )
    if len(numbers) > 64 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
        raise ValueError("sizes or strides are not numbers")
    return tuple(n for n in numbers if n is not None)
