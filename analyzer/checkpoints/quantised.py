"""Weights that a checkpoint keeps as small numbers beside tensors of scales, known by their names.

Those of eight bits are measured as the reals they stand for: float8 and int8 with a scale for all,
for each channel, for each group or for each block (``weight_scale`` of compressed-tensors and
ModelOpt, ``weight_scale_inv`` of DeepSeek, ``scale_weight`` of ComfyUI, ``SCB`` of bitsandbytes);
of those of four bits the ones of bitsandbytes. Others are packed into wider integers, in an order
that each writer has of its own: they are left out, and said to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from analyzer.checkpoints.entries import Entry, Found
from analyzer.checkpoints.four_bits import of_four_bits
from analyzer.checkpoints.regions import (
    DTYPES,
    GridScaledBlocks,
    StoredBlocks,
    cell_size,
    element_count,
)
from analyzer.model import Problem

_EIGHT = ("int8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_REALS = ("float64", "float32", "float16", "bfloat16", "float8_e8m0fnu")
_SCALES = ("weight_scale", "weight_scale_inv", "scale_weight")  # beside ``weight``, of the same module
_ROW_SCALE, _ROW_UNIT = "SCB", 1 / 127  # bitsandbytes keeps each row's largest size, which 127 stands for
_FOUR_BITS = "bitsandbytes in 4 bits"
_PACKED = (  # last part of a packed weight's name, that of a tensor beside it, who writes it so
    ("qweight", "scales", "GPTQ or AWQ"),
    ("weight_packed", "weight_scale", "compressed-tensors"),
    ("weight", "weight.absmax", _FOUR_BITS),
    ("weight", "weight_scale", "NVFP4"),
    ("weight", "scales", "MLX"),
    ("W_q", "scale", "HQQ"),
)

Key = tuple[str, str]  # group and name


def unpacked(entries: Sequence[Entry], found: Found) -> list[Entry]:
    """The entries with quantised weights as reals, without those that cannot be read as such."""
    named = {(entry.group, entry.name): entry for entry in entries if not entry.slot}
    kept: list[Entry] = []
    left_out: Counter[str] = Counter()
    for entry in entries:
        writer = "" if entry.slot else _packed_by(entry, named)
        if writer == _FOUR_BITS and (read := of_four_bits(entry, named)):
            entry, writer = read, ""
        scale = None if entry.slot or writer else _scale_of(entry, named)
        if scale is not None:
            real = _scaled(entry, scale, named)
            writer = "" if real else "scales that do not fit"
            entry = real or entry
        if writer:
            left_out[writer] += 1
        else:
            kept.append(entry)
    for writer, count in left_out.items():
        message = f"quantised weights that are not decoded and not measured: {count} ({writer})"
        found.problems.append(Problem(found.path, "unsupported", message))
    return kept


def _last(entry: Entry) -> str:
    return entry.name[entry.name.rfind(".") + 1 :]


def _beside(entry: Entry, named: Mapping[Key, Entry], name: str) -> Entry | None:
    """The tensor of that name in the same module."""
    return named.get((entry.group, entry.name[: entry.name.rfind(".") + 1] + name))


def _packed_by(entry: Entry, named: Mapping[Key, Entry]) -> str:
    """Who packs weights under such a name and with such tensors beside; "" for what is not packed."""
    if entry.dtype not in ("uint8", "int32", "uint32", "int64", "int16"):
        return ""
    last = _last(entry)
    for name, other, writer in _PACKED:
        if last == name and _beside(entry, named, other):
            return writer
    if last.endswith("_blocks") and _beside(entry, named, last.removesuffix("_blocks") + "_scales"):
        return "MXFP4"
    return ""


def _scale_of(entry: Entry, named: Mapping[Key, Entry]) -> Entry | None:
    """The scales of a weight of eight bits."""
    if entry.dtype not in _EIGHT or len(entry.shape) < 2:
        return None
    last = _last(entry)
    names = [f"{last}_scale", f"{last}_scale_inv", *(_SCALES if last == "weight" else ())]
    if entry.dtype == "int8" and last == "weight":
        names.append(_ROW_SCALE)
    return next((found for name in names if (found := _beside(entry, named, name))), None)


def _scaled(entry: Entry, scale: Entry, named: Mapping[Key, Entry]) -> Entry | None:
    """The weight as reals; None where the scales do not fit it."""
    whole, grid = entry.blocks, _grid(entry.shape, scale.shape)
    zero = _beside(entry, named, f"{_last(entry)}_zero_point")
    if not isinstance(whole, StoredBlocks) or grid is None or scale.dtype not in _REALS:
        return None
    if zero and zero.shape != scale.shape:
        return None
    factor = _ROW_UNIT if _last(scale) == _ROW_SCALE else 1.0
    blocks = GridScaledBlocks(whole, scale.blocks, grid, zero.blocks if zero else None, factor)
    nbytes = element_count(entry.shape) * DTYPES[entry.dtype].size
    return replace(entry, blocks=blocks, dtype=f"q{entry.dtype}", nbytes=nbytes)


def _grid(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, ...] | None:
    """How many scales there are along each axis of a weight; None where they do not fit."""
    if element_count(scales) == 1:
        return (1,) * len(shape)
    if len(scales) < len(shape):
        scales = (*scales, *(1,) * (len(shape) - len(scales)))
    if len(scales) != len(shape) or not all(map(cell_size, shape, scales)):
        return None
    return scales
