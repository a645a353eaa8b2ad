"""An examining process that misbehaves where a run's folder says so: for the tests of what guards it.

Started as ``python -m audit_children`` in place of ``analyzer.auditing.child``.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from analyzer.auditing import child
from analyzer.auditing.examine import examine


def misbehaving(bundle: Any, settings: Any, tails: Any) -> Any:
    if "hangs" in bundle.path:
        time.sleep(600)
    if "crashes" in bundle.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "eats" in bundle.path:
        eaten = [np.zeros(1 << 26, np.int8) for _ in range(1 << 20)]
        raise AssertionError(f"{len(eaten)} blocks are more than may be had")
    return examine(bundle, settings, tails)


if __name__ == "__main__":
    child.examine = misbehaving  # type: ignore[attr-defined]
    child.main()
