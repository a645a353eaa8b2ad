"""What was made of it: the types of measuring, judging and comparing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from analyzer.model.logged import Direction, FloatArray, Problem, Run, Scalar

Severity = Literal["critical", "warning", "info"]
Verdict = Literal["critical", "warning", "info", "healthy", "not-assessed"]

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


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
