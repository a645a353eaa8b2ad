"""Features: named, scale-free measurements of a run.

A family is a module of this package; its functions register themselves with :func:`feature`.
``compute`` gives a mapping that evaluates a feature when it is first asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.checkpoints.evidence import DeadUnits, dead_units
from analyzer.errors import IngestError
from analyzer.features.curves import Curve, Unavailable, curve_of
from analyzer.model import Checkpoint, LayerStats, Measurement, Missing, Run

Value = float | Measurement
Shared = TypeVar("Shared")
CURVE_ROLES = ("train_loss", "val_loss", "train_metric", "val_metric", "reward")
ROLE_WORDS = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "train_metric": "training metric",
    "val_metric": "validation metric",
}


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a feature means. ``unit`` is ratio, count, step, sigma, flag, value or name."""

    name: str
    unit: str
    low: float
    high: float
    meaning: str
    family: str
    label: str
    compute: Callable[[Context], Value]


_SPECS: dict[str, FeatureSpec] = {}


class Context:
    """What a feature may ask for: curves by role, other features, layers."""

    def __init__(self, run: Run, layers: Sequence[LayerStats] = ()):
        self.run = run
        self.layers = tuple(layers)
        self._curves: dict[tuple[str, bool], Curve | Unavailable] = {}
        self._values: dict[str, Measurement | Missing] = {}

    def curve(self, role: str, averaged: bool = False) -> Curve:
        """The curve that stands for ``role``, see :func:`curve_of`; raises :class:`Unavailable`."""
        key = (role, averaged)
        if key not in self._curves:
            try:
                self._curves[key] = curve_of(self.run, role, averaged)
            except Unavailable as missing:
                self._curves[key] = missing
        found = self._curves[key]
        if isinstance(found, Unavailable):
            raise found
        return found

    def has(self, role: str) -> bool:
        try:
            self.curve(role)
        except Unavailable:
            return False
        return True

    @property
    def measured(self) -> Mapping[str, Measurement | Missing]:
        """What was asked for so far."""
        return self._values

    def measure(self, name: str) -> Measurement | Missing:
        if name not in self._values:
            self._values[name] = self._evaluate(specs()[name])
        return self._values[name]

    def value(self, name: str) -> float:
        """Another feature's value; raises :class:`Unavailable` where it is missing."""
        found = self.measure(name)
        if isinstance(found, Missing):
            raise Unavailable(found.reason, found.needs)
        return found.value

    def _evaluate(self, spec: FeatureSpec) -> Measurement | Missing:
        try:
            with np.errstate(all="ignore"):
                value = spec.compute(self)
        except Unavailable as missing:
            return Missing(missing.reason, missing.needs)
        except (IngestError, OSError) as error:  # a tensor that cannot be read
            return Missing(str(error), ("checkpoint",))
        measured = value if isinstance(value, Measurement) else Measurement(value)
        if np.isnan(measured.value):
            return Missing(f"{spec.name} is undefined for this run")
        if type(measured.value) is float:
            return measured
        return replace(measured, value=float(measured.value))  # never numpy's: `np.False_ is not False`

    @cached_property
    def last_checkpoint(self) -> Checkpoint:
        """The run's last checkpoint; raises :class:`Unavailable`."""
        if not self.run.checkpoints:
            raise Unavailable("the run has no checkpoint that could be read", ("checkpoint",))
        return self.run.checkpoints[-1]

    @cached_property
    def dead_units(self) -> tuple[DeadUnits, ...]:
        """What the last checkpoint says of units that do nothing."""
        last = self.last_checkpoint
        return dead_units(last, [s for s in self.layers if s.checkpoint == last.path])

    @cached_property
    def last_step(self) -> float:
        ends = [s.steps[-1] for s in self.run.series if s.points and s.axis == "step"]
        return float(max(ends)) if ends else 0.0


def once(function: Callable[[Context], Shared]) -> Callable[[Context], Shared]:
    """What several features need: ``function``, computed once a run."""
    known: WeakKeyDictionary[Context, Shared] = WeakKeyDictionary()

    def shared(context: Context) -> Shared:
        if context not in known:
            known[context] = function(context)
        return known[context]

    return shared


def feature(
    name: str,
    unit: str,
    meaning: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    label: str = "",
) -> Callable[[Callable[[Context], Value]], Callable[[Context], Value]]:
    """Register a function of the run as the feature ``name``."""

    def register(function: Callable[[Context], Value]) -> Callable[[Context], Value]:
        family = function.__module__.rpartition(".")[2]
        _SPECS[name] = FeatureSpec(name, unit, low, high, meaning, family, label or meaning, function)
        return function

    return register


def curve_feature(
    suffix: str,
    unit: str,
    meaning: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    label: str = "",
    roles: Sequence[str] = CURVE_ROLES,
) -> Callable[[Callable[[Curve], Value]], Callable[[Curve], Value]]:
    """Register a function of one curve as ``<role>.<suffix>`` for each of ``roles``.

    ``{curve}`` in ``meaning`` and ``label`` stands for the role in words.
    """

    def register(function: Callable[[Curve], Value]) -> Callable[[Curve], Value]:
        family = function.__module__.rpartition(".")[2]
        for role in roles:
            words = ROLE_WORDS.get(role, role.replace("_", " "))
            name = f"{role}.{suffix}"
            _SPECS[name] = FeatureSpec(
                name,
                unit,
                low,
                high,
                meaning.replace("{curve}", words),
                family,
                f"{words}, {label}"
                if label and "{curve}" not in label
                else (label or meaning).replace("{curve}", words),
                _of_curve(function, role),
            )
        return function

    return register


def _of_curve(function: Callable[[Curve], Value], role: str) -> Callable[[Context], Value]:
    return lambda context: function(context.curve(role))


@cache
def _load_families() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def specs() -> Mapping[str, FeatureSpec]:
    """Every known feature by name."""
    _load_families()
    return _SPECS


class LazyFeatures(Mapping[str, Measurement | Missing]):
    """Features by name, each computed when first asked for."""

    def __init__(self, context: Context):
        self._context = context

    def __getitem__(self, name: str) -> Measurement | Missing:
        if name not in specs():
            raise KeyError(name)
        return self._context.measure(name)

    def __iter__(self) -> Iterator[str]:
        return iter(specs())

    def __len__(self) -> int:
        return len(specs())

    def measured(self) -> Mapping[str, Measurement | Missing]:
        """Those that were asked for so far."""
        return self._context.measured


def compute(run: Run, layers: Sequence[LayerStats] = ()) -> Mapping[str, Measurement | Missing]:
    """All features of ``run``; ``layers`` are the statistics of its checkpoints' tensors."""
    return LazyFeatures(Context(run, layers))
