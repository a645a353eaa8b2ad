"""The verdict at the end of training: a callback for each trainer, none imported unless asked for.

>>> from analyzer.callbacks.lightning import Diagnosis      # Trainer(callbacks=[Diagnosis()])
>>> from analyzer.callbacks.transformers import Diagnosis   # Trainer(..., callbacks=[Diagnosis()])
>>> from analyzer.callbacks.keras import Diagnosis          # model.fit(..., callbacks=[Diagnosis()])

Each prints the report of the run that just ended and keeps it as ``report``. A failure of the
analysis is printed too and never costs the training run its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from analyzer.model import Report


def concluded(analyse: Callable[[], Report]) -> Report | None:
    """Print what ``analyse`` finds; None, with the reason on stderr, where it fails."""
    try:
        report = analyse()
        sys.stdout.write(verdict(report))
    except Exception as error:  # nothing of ours may end a training run
        sys.stderr.write(f"the diagnosis of this run failed: {type(error).__name__}: {error}\n")
        return None
    return report


def verdict(report: Report) -> str:
    """The report as the terminal shows it, in ASCII where stdout can carry no more."""
    from analyzer.report.terminal import render

    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    text = render(report)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return render(report, ascii_only=True)
    return text
