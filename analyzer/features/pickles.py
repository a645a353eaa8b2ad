"""What a checkpoint's pickle would do to whoever loads it the usual way."""

from __future__ import annotations

from collections.abc import Iterator

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.model import Checkpoint, Measurement


def _pickled(context: Context) -> list[Checkpoint]:
    """The checkpoints that are pickles; those in formats without code have nothing to run."""
    found = [c for c in context.run.checkpoints if "pickle_imports" in c.metadata]
    if not found:
        raise Unavailable("no checkpoint of the run is a pickle", ("checkpoint",))
    return found


def _told(context: Context, level: str) -> Measurement:
    """How many names of a level the pickles import, each with how and at which byte."""
    items = tuple(item for c in _pickled(context) for item in _items(c, level))
    where = next((c.path for c in context.run.checkpoints if f"pickle_{level}" in c.metadata), "")
    return Measurement(float(len(items)), where=where, items=items)


def _items(checkpoint: Checkpoint, level: str) -> Iterator[str]:
    text = checkpoint.metadata.get(f"pickle_{level}")
    if isinstance(text, str):
        yield from text.split("; ")


@feature(
    "pickle.runs_code",
    "count",
    "functions that run commands or code, imported or called by a checkpoint's pickle",
    low=0,
    label="runs code",
)
def runs_code(context: Context) -> Value:
    return _told(context, "critical")


@feature(
    "pickle.reaches_out",
    "count",
    "functions that carry code, or reach for files, processes or the network, in a checkpoint's pickle",
    low=0,
    label="reaches out",
)
def reaches_out(context: Context) -> Value:
    return _told(context, "warning")


@feature("pickle.imports", "count", "names that the checkpoints' pickles import", low=0)
def imports(context: Context) -> Value:
    counts = [c.metadata["pickle_imports"] for c in _pickled(context)]
    return float(max(count for count in counts if isinstance(count, int)))
