"""What was stored beside the logs: checkpoints and their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analyzer.model.logged import Problem, Scalar


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor in a checkpoint that is read only when asked for.

    ``group`` says what it belongs to: model, ema, optimizer or other. For optimizer state,
    ``name`` is the parameter's name (or its index where names are not stored) and ``slot`` the
    state's key, such as ``exp_avg_sq``.
    ``blocks(limit)`` yields the elements in storage order as flat numpy arrays of at most
    ``limit`` bytes, bfloat16 and float8 widened to float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    group: str
    blocks: Callable[[int], Iterator[NDArray[np.generic]]]
    slot: str = ""

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a checkpoint holds. No tensor's bytes are in memory."""

    path: str
    format: str
    tensors: tuple[TensorRef, ...]
    step: int | None = None
    epoch: int | None = None
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    optimizer: Mapping[str, Scalar] = field(default_factory=dict)  # first param group: lr, betas …
    metadata: Mapping[str, Scalar] = field(default_factory=dict)  # loss scale, versions …
    problems: tuple[Problem, ...] = ()
