"""Checkpoint files with lying sizes, offsets and names."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

FLOAT = b"ctorch\nFloatStorage\n"


def torch_pickle(
    *, storage: bytes = FLOAT, key: str = "0", elements: int = 4, offset: int = 0, shape: bytes = b"K\x04\x85",
    strides: bytes = b"K\x01\x85", name: str = "weight",
) -> bytes:  # fmt: skip
    """A state dict of one tensor, as torch pickles it, with any part of it replaced."""
    identity = (
        b"(X\x07\x00\x00\x00storage" + storage + _text(key) + _text("cpu") + _int(elements) + b"tQ"
    )  # the persistent id
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + _int(offset) + shape + strides
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip
    return b"\x80\x02}" + _text(name) + tensor + b"s."


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def torch_zip(
    path: Path, pickled: bytes, *, data: bytes = bytes(16), compress: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


def patch_directory(path: Path, member: str, **fields: int) -> Path:
    """Overwrites fields of a member's entry in the zip directory, as a forger would."""
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02", 0, raw.rfind(member.encode()))
    places = {
        "method": (10, "<H"),
        "packed": (20, "<I"),
        "size": (24, "<I"),
        "header": (42, "<I"),
        "flags": (8, "<H"),
    }
    for name, value in fields.items():
        offset, code = places[name]
        struct.pack_into(code, raw, at + offset, value)
    path.write_bytes(raw)
    return path


def deflate_bomb(path: Path, size: int) -> Path:
    """A data.pkl of ``size`` zero bytes in a thousandth of the room."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()
    name = b"archive/data.pkl"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0)
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0, 0, 0, 0, 0, 0
    )
    body = local + name + packed
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) + len(name), len(body), 0)
    path.write_bytes(body + entry + name + end)
    return path


def safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path
