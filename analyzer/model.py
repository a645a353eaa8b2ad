"""The types everything else speaks in.

One direction of flow: path -> Run -> Features -> Findings -> Report -> text.
This file imports nothing of ours, so any module may import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Scalar = str | int | float | bool | None

Severity = Literal["critical", "warning", "info"]
Verdict = Literal["critical", "warning", "info", "healthy", "not-assessed"]
Direction = Literal["lower", "higher", "unknown"]
Axis = Literal["step", "epoch", "row", "episode"]

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read, and what was lost by it.

    Damage: truncated, checksum, damaged, empty, unreadable, missing, too-large, unsafe.
    Nothing to read: pointer (a Git LFS pointer instead of the file), unsupported, no-series (text
    or results without a curve), no-logs (hyperparameters alone), passed-over, unsure.
    Facts about the run: crashed (its output ends in an exception), restarted.
    Our own: rule-error, internal. ``offset`` is in bytes.
    """

    path: str
    kind: str
    message: str
    offset: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One logged curve.

    ``steps`` and ``values`` are float64 of equal length n; ``wall_times`` (seconds since the
    epoch, or since the start where only that was logged) likewise, or None. Ingestors emit the
    points in the order they were written; after assembly ``steps`` never decrease.
    NaN in ``values`` is a NaN that was logged: a missing value is a missing point.
    """

    tag: str
    steps: FloatArray
    values: FloatArray
    wall_times: FloatArray | None = None
    axis: Axis = "step"
    source: str = ""
    role: str = ""  # "" = not mapped
    direction: Direction = "unknown"
    subject: str = ""  # the layer, class, component or metric that a per-part role speaks of
    rewinds: tuple[float, ...] = ()  # steps at which the log went back
    superseded: int = 0  # points overwritten by a later write of the same step
    leading_zeros: int = 0  # placeholder zeros logged before the metric was first computed

    @property
    def points(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """All histograms logged under one tag, in columns.

    Frame i holds buckets ``offsets[i]:offsets[i + 1]``; bucket j covers
    ``(edges_left[j], edges_right[j]]`` with ``counts[j]`` elements. Per-frame columns have one
    entry a frame; where the writer did not store them (tensor encoding) they are computed from
    the buckets.
    """

    tag: str
    steps: FloatArray
    wall_times: FloatArray
    minimum: FloatArray
    maximum: FloatArray
    count: FloatArray
    total: FloatArray
    total_squares: FloatArray
    offsets: IntArray
    edges_left: FloatArray
    edges_right: FloatArray
    counts: FloatArray
    source: str = ""
    role: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A logged piece of text: never interpreted, always escaped when shown."""

    tag: str
    step: float
    value: str


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


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values σ of a weight matrix (σ₁ ≥ σ₂ ≥ …), kernels as output units times inputs.

    ``stable_rank`` is Σσ²/σ₁², ``effective_rank`` the exponential of the entropy of σ/Σσ (Roy &
    Vetterli 2007): at most the smaller side. ``tail_exponent`` is that of a power law fitted to the
    ``tail_count`` largest σ², ``tail_distance`` its Kolmogorov-Smirnov distance; None where it was
    not fitted. ``exact`` is False where the effective rank is a stochastic estimate.
    """

    rows: int
    columns: int
    largest: float
    stable_rank: float
    effective_rank: float
    tail_exponent: float | None = None
    tail_distance: float | None = None
    tail_count: int | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class LayerStats:
    """Statistics of one tensor of one checkpoint.

    Moments, minimum, maximum, norms and quantiles are over the finite elements and None where
    there is none. ``unit_norm_min``/``unit_norm_median``/``dead_units`` are over rows of the
    first axis (output units), None for fewer than two axes.
    """

    name: str
    group: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    abs_max: float | None
    l1: float | None
    l2: float | None
    zeros: int
    nan: int
    inf: int
    skew: float | None
    kurtosis: float | None
    quantiles: Mapping[str, float] = field(default_factory=dict)
    slot: str = ""
    fan_in: int | None = None
    unit_norm_min: float | None = None
    unit_norm_median: float | None = None
    dead_units: int | None = None
    checkpoint: str = ""
    subnormal: int = 0
    outliers: float | None = None  # share beyond six standard deviations from the mean
    unit_norm_max: float | None = None
    duplicate_units: int | None = None  # equal to an earlier one, dead ones left out
    histogram: tuple[int, ...] = ()  # counts in equal bins over the range, the rest in the end bins
    histogram_range: tuple[float, float] | None = None
    spectrum: Spectrum | None = None
    unit_norms: FloatArray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor of two checkpoints: added, removed, reshaped, changed or identical (bit for bit).

    ``relative`` is ‖w₁ − w₀‖ / ‖w₀‖, ``cosine`` that of the angle between them, ``largest`` the largest
    absolute difference; None where undefined: w₀ is zero, an element is not finite, shapes differ.
    """

    name: str
    group: str
    status: str
    shape: tuple[int, ...]
    shape_before: tuple[int, ...] = ()
    slot: str = ""
    norm: float | None = None
    norm_before: float | None = None
    relative: float | None = None
    cosine: float | None = None
    largest: float | None = None
    parameter: bool = True  # as far as its name and element type tell; False for buffers


@dataclass(frozen=True, slots=True)
class TensorPath:
    """One tensor through several checkpoints, in their order; None where undefined.

    ``travelled`` is the distance from the first, ``moved`` that from the one before (None for the
    first), both relative to the first's norm; ``cosine`` that of the angle to the first.
    """

    name: str
    shape: tuple[int, ...]
    norms: tuple[float | None, ...]
    travelled: tuple[float | None, ...]
    moved: tuple[float | None, ...]
    cosine: tuple[float | None, ...]
    frozen: bool  # never changed a bit
    parameter: bool = True


@dataclass(frozen=True, slots=True)
class ActivationStats:
    """What one layer of a model gave out on given inputs, in the order of the forward pass.

    Moments, minimum and maximum are over the finite elements, None where there is none. ``saturated`` is
    the share within a hundredth of the limits of a bounded activation, None for others. ``dead_units``
    are output units (of ``units``) that were zero for every sample and position, None where the output
    has no such axis. ``origin`` is True where non-finite values appear although none came in.
    """

    layer: str
    kind: str  # the layer's class or operation
    shape: tuple[int, ...]  # of one call's output
    count: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    zeros: float  # share
    nan: int
    inf: int
    saturated: float | None = None
    units: int | None = None
    dead_units: int | None = None
    origin: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one file gave: the common answer of every ingestor."""

    series: tuple[Series, ...] = ()
    histograms: tuple[Histograms, ...] = ()
    texts: tuple[Text, ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training run: everything that was found of it."""

    name: str
    path: str
    series: tuple[Series, ...] = ()
    histograms: tuple[Histograms, ...] = ()
    texts: tuple[Text, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # every file that belongs to the run, read or not
    problems: tuple[Problem, ...] = ()

    def by_role(self, role: str) -> tuple[Series, ...]:
        return tuple(s for s in self.series if s.role == role)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The value of one feature, and where it shows.

    ``steps`` is the stretch (or, both ends equal, the point) of ``role``'s curve that the value
    speaks of; ``where`` names the layer, class or tensor that is worst; ``items`` all of them.
    ``points`` are the steps of single events to be marked one by one, the worst first.
    """

    value: float
    steps: tuple[float, float] | None = None
    role: str = ""
    where: str = ""
    items: tuple[str, ...] = ()
    points: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a feature has no value; ``needs`` names what the run would have had to log."""

    reason: str
    needs: tuple[str, ...] = ()


Features = Mapping[str, Measurement | Missing]


@dataclass(frozen=True, slots=True)
class Param:
    """A rule's threshold, with its unit and the reason for its value."""

    value: float
    unit: str
    why: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """``feature op threshold``; ``param`` names the parameter the threshold came from."""

    feature: str
    op: str
    threshold: float
    param: str = ""


@dataclass(frozen=True, slots=True)
class All:
    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class SomeOf:
    """Any of several kinds of evidence; those that could not be looked at do not count."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Condition


@dataclass(frozen=True, slots=True)
class Unless:
    """Holds unless ``item`` is known to hold: what could not be measured does not stand against it."""

    item: Condition


Condition = All | AnyOf | SomeOf | Not | Unless | Leaf


@dataclass(frozen=True, slots=True)
class Cause:
    """A hypothesis. ``weight`` is its likelihood before the evidence of the run is looked at."""

    id: str
    text: str
    weight: float = 0.5
    more_likely_when: Condition | None = None
    less_likely_when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """``snippets`` maps framework (pytorch, lightning, keras, transformers) to code."""

    title: str
    effort: str  # low | medium | high
    snippets: Mapping[str, str]
    text: str = ""


@dataclass(frozen=True, slots=True)
class RuleTest:
    """An example embedded in a rule: series by role (or tag), and what the rule must say."""

    name: str
    expect: str  # fires | quiet | not_applicable
    series: Mapping[str, object] = field(default_factory=dict)
    features: Mapping[str, float | Measurement | None] = field(default_factory=dict)
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """How a finding reads where ``when`` holds; an empty field leaves the rule's own."""

    when: Condition
    severity: Severity | None = None
    title: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    title: str
    family: str
    severity: Severity
    scope: str  # run | checkpoint | layer
    why: str
    when: Condition
    applies_when: Condition
    evidence: str
    confidence: float
    params: Mapping[str, Param]
    causes: tuple[Cause, ...]
    remedies: tuple[Remedy, ...]
    false_positives: tuple[str, ...]
    references: tuple[str, ...]
    explains: tuple[str, ...]
    tests: tuple[RuleTest, ...]
    path: str = ""
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One condition that held: a measurement against its threshold."""

    feature: str
    value: float
    op: str
    threshold: float
    text: str
    margin: float = 0.0  # how far beyond the threshold, 0 at it, 1 at twice it


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to draw on the curve of ``role``: a point (first == last) or a stretch."""

    role: str
    first: float
    last: float
    label: str


@dataclass(frozen=True, slots=True)
class LikelyCause:
    id: str
    text: str
    likelihood: float
    evidence: tuple[str, ...] = ()  # what in this run speaks for or against it


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    title: str
    severity: Severity
    confidence: float
    summary: str
    why: str
    scope_kind: str = "run"
    scope_name: str | None = None
    steps: tuple[float, float] | None = None
    evidence: tuple[Evidence, ...] = ()
    marks: tuple[Mark, ...] = ()
    causes: tuple[LikelyCause, ...] = ()
    remedies: tuple[Remedy, ...] = ()  # snippets filled with the run's own values
    false_positives: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    explained_by: str | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class NotApplicable:
    rule: str
    missing: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    run: Run
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    not_applicable: tuple[NotApplicable, ...] = ()
    problems: tuple[Problem, ...] = ()
    features: Features = field(default_factory=dict)
    layers: tuple[LayerStats, ...] = ()
    waste: Waste | None = None
    activations: tuple[ActivationStats, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Runs come worst first; each run's findings best first."""

    runs: tuple[RunReport, ...]
    problems: tuple[Problem, ...] = ()
    version: str = ""
    insight: Insight | None = None  # for two runs or more

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(f for r in self.runs for f in r.findings)


@dataclass(frozen=True, slots=True)
class Waste:
    """Compute of one run that bought nothing: from some step on, all of it.

    ``rule`` is the finding that says so, ``share`` of the run's steps (0 to 1); ``steps`` is None for a
    run logged by the epoch, ``hours`` where no wall time was logged.
    """

    rule: str
    share: float
    steps: float | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a curve, where it was, and which way is better (lower or higher)."""

    value: float
    step: float
    direction: Direction


@dataclass(frozen=True, slots=True)
class Member:
    """What comparing runs needs to know of one of them; small, however long its log.

    ``findings`` are rule and severity, those explained by another left out; ``tags`` the names of its
    curves; ``best`` the best point by role; ``rewinds`` how often it was resumed from an earlier step;
    ``digest`` is equal for runs whose curves are.
    """

    name: str
    path: str
    verdict: Verdict
    findings: tuple[tuple[str, Severity], ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    best: Mapping[str, Best] = field(default_factory=dict)
    points: int = 0
    steps: float | None = None
    hours: float | None = None
    waste: Waste | None = None
    rewinds: int = 0
    crashed: bool = False
    checkpoints: tuple[tuple[str, int | None], ...] = ()  # path and step
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Prevalence:
    """How many of the compared runs have a finding; ``severity`` is its worst among them."""

    rule: str
    severity: Severity
    runs: int
    of: int


@dataclass(frozen=True, slots=True)
class Replicates:
    """Runs of one configuration that differ in nothing but their seed.

    ``always`` are the rules that hold for all of them; ``sometimes`` maps the others to their count.
    ``values`` are the best values of ``metric``, run by run.
    """

    runs: tuple[str, ...]
    always: tuple[str, ...]
    sometimes: Mapping[str, int]
    metric: str = ""
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Association:
    """A hyperparameter that separates the runs with a finding from those without: no proof of a cause.

    ``rule`` is "" for any finding of warning or worse. For numbers, ``effect`` is Cliff's delta (-1 to 1,
    positive where runs with the finding have larger values) and ``with_finding``/``without`` are medians;
    for words, ``value`` is the word, ``effect`` the difference of the finding's shares among runs with
    and without it, which ``with_finding``/``without`` give. ``p`` is adjusted for all comparisons
    made (Benjamini-Hochberg). ``equal`` names hyperparameters that vary exactly alike.
    """

    rule: str
    hyperparameter: str
    effect: float
    p: float
    sick: int
    healthy: int
    with_finding: float
    without: float
    value: str = ""
    equal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlier:
    """A run far worse than its cohort: ``distance`` in scaled MADs from the median."""

    run: str
    metric: str
    value: float
    median: float
    distance: float


@dataclass(frozen=True, slots=True)
class Winner:
    """The best run of a cohort by one metric, and its checkpoint nearest to that point."""

    metric: str
    run: str
    value: float
    step: float
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Runs that logged the same curves and have the same hyperparameters, by name."""

    runs: tuple[str, ...]
    varying: tuple[str, ...]
    replicates: tuple[Replicates, ...]
    prevalence: tuple[Prevalence, ...]
    associations: tuple[Association, ...]
    outliers: tuple[Outlier, ...]
    winners: tuple[Winner, ...]


@dataclass(frozen=True, slots=True)
class WasteTotal:
    """Waste of all runs. ``share`` is the mean over the ``runs`` long enough to tell; hours and steps
    are sums over those that logged them, ``by_rule`` splits runs, steps and hours by finding."""

    runs: int
    share: float
    hours: float
    of_hours: float
    steps: float
    of_steps: float
    by_rule: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insight:
    """What several runs tell together."""

    cohorts: tuple[Cohort, ...]
    prevalence: tuple[Prevalence, ...]
    waste: WasteTotal
    duplicates: tuple[tuple[str, ...], ...] = ()
    never_started: tuple[str, ...] = ()
    died_early: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()
