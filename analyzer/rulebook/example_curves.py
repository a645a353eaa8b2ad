"""Curves described in a rule's embedded tests -> steps and values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from analyzer.model import FloatArray
from analyzer.rulebook.nodes import did_you_mean

MAX_POINTS = 1_000_000
SHAPES = ("linear", "exponential", "constant", "step")
STEEPNESS = 5.0  # time constants an exponential piece covers
NUMBERS = {
    "points": 0.0, "start": 0.0, "end": 0.0, "noise": 0.0, "seed": 0.0,
    "period": 0.0, "amplitude": 0.0, "from_step": 0.0, "every": 1.0,
}  # fmt: skip
KEYS = (*NUMBERS, "shape", "jumps")


def curve(described: object) -> tuple[FloatArray, FloatArray]:
    """Steps and values of numbers, a piece, or a list of either joined; ValueError says why not."""
    parts = described if isinstance(described, list) else [described]
    if not parts:
        raise ValueError("an empty curve: leave it out instead")
    if all(_is_number(part) for part in parts):
        return np.arange(len(parts), dtype=np.float64), np.array(parts, dtype=np.float64)
    steps: list[FloatArray] = []
    values: list[FloatArray] = []
    following = 0.0
    for part in parts:
        new_steps, new_values, following = _piece(part, following)
        steps.append(new_steps)
        values.append(new_values)
    return np.concatenate(steps), np.concatenate(values)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _piece(part: object, following: float) -> tuple[FloatArray, FloatArray, float]:
    """Steps and values of one piece that starts at ``following``, and where the next one starts."""
    if _is_number(part):
        return np.array([following]), np.array([part], dtype=np.float64), following + 1
    if not isinstance(part, Mapping):
        raise ValueError(f"{part!r} is neither a number nor the description of a piece")
    given = _numbers(part)
    every = given["every"]
    if not 1 <= given["points"] <= MAX_POINTS or every <= 0:
        raise ValueError(f"a piece has 1 to {MAX_POINTS:,} points and a positive 'every'")
    n = int(given["points"])
    first = given["from_step"] if "from_step" in part else following
    steps = first + every * np.arange(n, dtype=np.float64)
    return steps, _values(part, given, n), float(steps[-1]) + every


def _numbers(part: Mapping[object, object]) -> dict[str, float]:
    """The piece's numbers, with defaults for those it leaves out."""
    for key, value in part.items():
        if key not in KEYS:
            raise ValueError(f"unknown key '{key}' in a piece; {did_you_mean(str(key), KEYS)}".rstrip("; "))
        if key in NUMBERS and not (_is_number(value) and math.isfinite(value)):
            raise ValueError(f"'{key}' of a piece must be a finite number")
    if "points" not in part or "start" not in part:
        raise ValueError("a piece needs 'points' and 'start'")
    given = {key: float(part.get(key, default)) for key, default in NUMBERS.items()}  # type: ignore[arg-type]
    return given if "end" in part else given | {"end": given["start"]}


def _values(part: Mapping[object, object], given: Mapping[str, float], n: int) -> FloatArray:
    values = given["start"] + (given["end"] - given["start"]) * _progress(part.get("shape", "linear"), n)
    if given["period"]:
        values = values + given["amplitude"] * np.sin(2 * np.pi * np.arange(n) / given["period"])
    if given["noise"]:
        values = values + np.random.default_rng(int(given["seed"])).normal(0.0, given["noise"], n)
    return _jump(values, part.get("jumps", {}))


def _progress(shape: object, n: int) -> FloatArray:
    """How far from start (0) to end (1) each of n points is."""
    time = np.linspace(0.0, 1.0, n)
    if shape == "linear":
        return time
    if shape == "exponential":
        return np.asarray(np.expm1(-STEEPNESS * time) / np.expm1(-STEEPNESS))
    if shape == "step":
        return np.asarray(np.arange(n) >= (n + 1) // 2, dtype=np.float64)
    if shape == "constant":
        return np.zeros(n)
    raise ValueError(f"unknown shape '{shape}'; one of {', '.join(SHAPES)}")


def _jump(values: FloatArray, jumps: object) -> FloatArray:
    """Add to single points; a .nan or .inf replaces the point."""
    if not isinstance(jumps, Mapping):
        raise ValueError("'jumps' must be a mapping of index to added value")
    values = values.copy()
    for index, added in jumps.items():
        if not isinstance(index, int) or not -len(values) <= index < len(values) or not _is_number(added):
            raise ValueError(f"jump {index}: {added} does not add a number to one of {len(values)} points")
        values[index] += added
    return values
