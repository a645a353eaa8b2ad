"""The report as one picture: the sick runs below each other."""

from __future__ import annotations

import io

import numpy as np

from analyzer.model import Report
from analyzer.report.figure import cover, figure, quietly, sick

NAME = "png"
SUFFIX = ".png"
DEFAULT_FILE = "report.png"
RUNS = 12  # in one picture
DPI = 144


def render(report: Report, **_: object) -> bytes:
    pages = [figure(run) for run in sick(report)[:RUNS]] or [cover(report)]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    parts = []
    for page in pages:
        page.set_dpi(DPI)
        canvas = FigureCanvasAgg(page)
        quietly(canvas.draw)
        parts.append(np.asarray(canvas.renderer.buffer_rgba()))
    buffer = io.BytesIO()
    imsave(buffer, np.concatenate(parts), format="png")
    return buffer.getvalue()
