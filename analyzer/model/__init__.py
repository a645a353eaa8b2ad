"""The types everything else speaks in.

One direction of flow: path -> Run -> Features -> Findings -> Report -> text.
This package imports nothing of ours, so any module may import it. What reading does not need is loaded
when it is asked for: making so many classes takes as long as reading a million points.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from analyzer.model.logged import *  # noqa: F403

if TYPE_CHECKING:
    from analyzer.model.judged import *  # noqa: F403
    from analyzer.model.stored import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        module = "stored" if name in ("Checkpoint", "TensorRef") else "judged"
        return getattr(import_module(f"analyzer.model.{module}"), name)
