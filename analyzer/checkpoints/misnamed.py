"""Files that are no checkpoint we read, and deserve to be told why.

Pointers, web pages, text or nothing under a checkpoint's name; TensorFlow's own checkpoints.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from analyzer.errors import IngestError

NAME = "misnamed"
SUMMARY = "Git LFS pointers, web pages and text under a checkpoint's name: said so, not read"
ORDER = 0
SUFFIXES = frozenset(
    {".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".keras", ".hdf5",
     ".pt2", ".onnx", ".gguf", ".npz", ".npy", ".msgpack"}
)  # fmt: skip
_TENSORFLOW = re.compile(r"\.data-\d{5}-of-\d{5}$")
_POINTER = b"version https://git-lfs.github.com/spec/"
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


def claims(path: Path, head: bytes) -> bool:
    if _TENSORFLOW.search(path.name):
        return True
    return path.suffix.lower() in SUFFIXES and (not head or head.startswith(_POINTER) or _is_text(head))


def open(path: Path) -> NoReturn:
    """Raises IngestError that says what the file is instead."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise IngestError(str(path), "empty file: the write never finished, or the download failed", "empty")
    if head.startswith(_POINTER):
        message = "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"
        raise IngestError(str(path), message, "pointer")
    if _TENSORFLOW.search(path.name):
        message = "a TensorFlow checkpoint, which is not supported: save the weights as .weights.h5 or .keras"
        raise IngestError(str(path), message, "unsupported")
    if b"<html" in head[:1024].lower() or b"<!doctype" in head[:1024].lower():
        raise IngestError(
            str(path), "a web page, not a checkpoint: the download got an error page", "unsupported"
        )
    raise IngestError(str(path), "plain text, not a checkpoint", "unsupported")


def _is_text(head: bytes) -> bool:
    """Text that is no pickle of protocol 0, whose first opcodes are ``(`` or ``c`` and ends in ``.``."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] in (b"(", b"c", b"]", b"}"):
        return False
    readable = sum(byte in _TEXT or byte >= 0x80 for byte in head)
    return readable == len(head) and sum(byte >= 0x80 for byte in head) * 4 < len(head)
