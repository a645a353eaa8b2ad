"""A batch of inputs from a file: positional or named arrays, never executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.model import TensorRef

SAMPLES = 32  # of the batch at a time: what bounds the memory of a forward pass
MOST = 1 << 30  # bytes of inputs

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward pass; every array has the batch as its first axis."""

    positional: tuple[Array, ...]
    named: dict[str, Array]

    def batches(self, most: int = SAMPLES) -> Iterator[Inputs]:
        """Slices of at most so many samples; arrays of another length than the first are taken whole."""
        arrays = (*self.positional, *self.named.values())
        samples = len(arrays[0]) if arrays and arrays[0].ndim else 1
        for at in range(0, samples, most):
            part = slice(at, at + most)
            yield Inputs(
                tuple(_cut(a, part, samples) for a in self.positional),
                {name: _cut(a, part, samples) for name, a in self.named.items()},
            )


def _cut(array: Array, part: slice, samples: int) -> Array:
    return array[part] if array.ndim and len(array) == samples else array


def load_inputs(path: Path) -> Inputs:
    """From ``.pt``/``.npz`` (a tensor, a sequence or a dictionary of them), ``.npy`` or numeric ``.csv``.

    Names that are numbers are positions; others are named arguments. Raises AnalyzerError.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return Inputs((_table(path),), {})
    refs = open_checkpoint(path).tensors
    if not refs:
        raise AnalyzerError(f"{path}: holds no tensor to use as an input")
    if sum(ref.nbytes for ref in refs) > MOST:
        raise AnalyzerError(f"{path}: over 1 GiB of inputs; a few samples are enough")
    if len(refs) == 1 and not _is_argument(refs[0].name):
        return Inputs((array_of(refs[0]),), {})
    positional = sorted((ref for ref in refs if ref.name.isdigit()), key=lambda ref: int(ref.name))
    named = {ref.name: array_of(ref) for ref in refs if not ref.name.isdigit()}
    return Inputs(tuple(array_of(ref) for ref in positional), named)


def _is_argument(name: str) -> bool:
    """A single array is positional, unless its name is one that models take by name."""
    return name in ("input_ids", "pixel_values", "inputs_embeds", "input_values", "input_features")


def array_of(ref: TensorRef) -> Array:
    """The whole tensor; bfloat16 and float8 widened to float32."""
    blocks = list(ref.blocks(ref.nbytes or 1))
    flat = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return flat[: ref.count].reshape(ref.shape)


def _table(path: Path) -> Array:
    import pandas as pd

    try:
        frame = pd.read_csv(path, sep=None, engine="python")
        return frame.to_numpy(dtype=np.float32)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise AnalyzerError(f"{path}: not a table of numbers with a header: {error}") from None
