"""A curve in one line of text."""

from __future__ import annotations

import numpy as np

from analyzer.model import FloatArray
from analyzer.report.axes import LIMIT, use_log

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
NOT_A_NUMBER = "×"


def sparkline(values: FloatArray, width: int, ascii_only: bool = False) -> str:
    """The curve in at most ``width`` characters, one per equal share of the points.

    Each character is the median of its share; a share that holds a NaN or Inf is a cross.
    """
    if len(values) == 0 or width < 1:
        return ""
    bounded = np.where(np.isfinite(values), np.clip(values, -LIMIT, LIMIT), np.nan)
    shares = np.array_split(bounded, min(width, len(values)))
    heights = np.array([np.median(share) for share in shares])
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    return "".join(_block(h, blocks, "x" if ascii_only else NOT_A_NUMBER) for h in _unit(heights))


def _unit(heights: FloatArray) -> FloatArray:
    """Heights scaled to 0…1; a constant curve lies in the middle."""
    known = heights[np.isfinite(heights)]
    if len(known) == 0 or known.max() == known.min():
        return heights * 0 + 0.5
    scaled = np.log10(heights) if use_log(known) else heights
    finite = scaled[np.isfinite(scaled)]
    unit: FloatArray = (scaled - finite.min()) / (finite.max() - finite.min())
    return unit


def _block(height: float, blocks: str, broken: str) -> str:
    return broken if np.isnan(height) else blocks[min(int(height * len(blocks)), len(blocks) - 1)]
