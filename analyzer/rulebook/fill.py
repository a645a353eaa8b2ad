"""Measurements in words, and texts filled with measurements.

Text is filled by substitution alone. ``{feature}``, ``{feature:.0%}``, ``{feature.where}`` in
prose and ``<<feature|default>>`` in code stand for measurements; nothing else is interpreted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from analyzer.model import Features, Measurement, Missing
from analyzer.rulebook.conditions import Decided
from analyzer.rulebook.nodes import did_you_mean


class Spec(Protocol):
    """What the rulebook needs to know of a feature."""

    @property
    def unit(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def meaning(self) -> str: ...


Specs = Mapping[str, Spec]

PARTS = ("where", "items", "step", "first", "last")
COMPARISONS = {">=": "at least", ">": "above", "<=": "at most", "<": "below", "==": "", "!=": "other than"}
SHOWN_ITEMS = 5
SHOWN_NAME = 80
FORMS = {",": ",.6g"}
UNKNOWN = "unknown"
_REMARK = re.compile(r" ?\([^()]*\)")
_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_PROSE = re.compile(r"\{([^{}]*)\}")
_CODE = re.compile(r"<<(?=\S)([^<>|\n]*)(\|[^<>\n]*)?>>")
_FORMAT = re.compile(r",?d|,|,?(\.\d)?[f%g]|d [a-z ]+")
_HOSTILE = re.compile(r"[^A-Za-z0-9_./-]")


def number_text(value: float, unit: str) -> str:
    """``42 %``, ``12×``, ``1,200``, ``5.2 σ``: a value in its unit; large ratios as factors."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    if unit == "ratio":
        unit = _ratio_unit(value)
    if unit == "percent":
        return f"{value:,.0%}"[:-1] + " %" if abs(value) >= 1 else f"{value * 100:.3g} %"
    if unit == "factor":
        return f"{value:,.0f}×" if 100 <= abs(value) < 1e9 else f"{value:.3g}×"
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "sigma":
        return f"{value:,.0f} σ" if abs(value) >= 1000 else f"{value:.3g} σ"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if unit in ("step", "steps", "count") else f"{value:.4g}"


def _ratio_unit(value: float) -> str:
    return "factor" if abs(value) >= 2 else "percent"


def sentence(decided: Decided, spec: Spec) -> str:
    """``rise of the validation loss above its minimum: 42 % (threshold: at least 5 %)``."""
    leaf, found = decided.leaf, decided.measurement
    place = f" in {name_text(found.where)}" if found.where else ""
    if spec.unit == "flag":
        claim = re.sub(r"^1 (where|when|if) ", "", spec.meaning)
        return f"{claim}{place}: {number_text(found.value, 'flag')}"
    unit = _ratio_unit(leaf.threshold) if spec.unit == "ratio" else spec.unit
    limit = f"{COMPARISONS[leaf.op]} {number_text(leaf.threshold, unit)}".strip()
    what = getattr(spec, "label", "") or spec.meaning
    what = re.split("[:;]", what)[0]  # the rest explains the scale
    return f"{what}: {number_text(found.value, unit)}{place} (threshold: {limit})"


def name_text(name: str) -> str:
    """A name from a file, on one line and short: control characters replaced."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return clean if len(clean) <= SHOWN_NAME else clean[: SHOWN_NAME - 1] + "…"


def fill(template: str, features: Features, specs: Specs) -> str:
    """``template`` with its ``{placeholders}`` replaced; what is missing reads 'unknown'.

    A remark in parentheses, or a sentence among several, that speaks of missing values only is
    left out.
    """

    if "{" not in template:
        return template

    def known(part: str) -> bool:
        return tells(part, features, specs)

    kept = _REMARK.sub(lambda match: match[0] if known(match[0]) else "", template)
    sentences = _SENTENCES.split(kept)
    telling = [sentence for sentence in sentences if known(sentence)] or sentences
    return _PROSE.sub(lambda match: _prose(match[1], features, specs), " ".join(telling))


def tells(text: str, features: Features, specs: Specs) -> bool:
    """Whether a text has no placeholders, or one whose value is known."""
    names = _PROSE.findall(text) if "{" in text else []
    return not names or any(_prose(name, features, specs) != UNKNOWN for name in names)


def _prose(placeholder: str, features: Features, specs: Specs) -> str:
    reference, _, form = placeholder.partition(":")
    name, part = split_reference(reference.strip(), specs)
    found = features.get(name)
    if found is None or isinstance(found, Missing):
        return UNKNOWN
    if not part:
        return _formatted(found.value, form) if form else number_text(found.value, specs[name].unit)
    if part == "where":
        return name_text(found.where) or UNKNOWN
    if part == "items":
        return _listed(found.items)
    if found.steps is None:
        return UNKNOWN
    return _formatted(found.steps[part == "last"], form or ",.0f")


def _formatted(value: float, form: str) -> str:
    if not _FORMAT.fullmatch(form):
        return UNKNOWN
    if not math.isfinite(value):
        return number_text(value, "value")
    if noun := form[2:] if form.startswith("d ") else "":
        return f"{round(value):,} {noun}" + "s" * (round(value) != 1)
    return format(round(value), form) if form.endswith("d") else format(value, FORMS.get(form, form))


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name_text(n) for n in names[:SHOWN_ITEMS])
    more = len(names) - SHOWN_ITEMS
    return f"{shown} and {more} more" if more > 0 else shown or UNKNOWN


def fill_code(snippet: str, features: Features, specs: Mapping[str, object]) -> str:
    """``snippet`` with each ``<<feature|default>>`` replaced by the run's value, or its default."""

    def value(match: re.Match[str]) -> str:
        default = (match[2] or "|")[1:]
        quote = snippet[match.start() - 1 : match.start()]
        quoted = quote in ("'", '"') and snippet[match.end() : match.end() + 1] == quote
        between = f"{quote}, {quote}" if quoted else ", "
        return _code(match[1], features, specs, between) or default

    return _CODE.sub(value, snippet) if "<<" in snippet else snippet


def _code(reference: str, features: Features, specs: Mapping[str, object], between: str) -> str:
    """A placeholder's value as code; empty where it is missing. Names may be hostile."""
    name, part = split_reference(reference.strip(), specs)
    found = features.get(name)
    if found is None or isinstance(found, Missing):
        return ""
    if part == "where":
        return safe_name(found.where)
    if part == "items":
        return between.join(safe_name(n) for n in found.items if n)
    return _code_number(_number_of(found, part))


def _number_of(found: Measurement, part: str) -> float:
    if not part:
        return found.value
    return found.steps[part == "last"] if found.steps else math.nan


def _code_number(value: float) -> str:
    """Whole numbers without exponent, so that they work as counts; others to six digits."""
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def safe_name(name: str) -> str:
    """A name from a file, harmless inside code."""
    return _HOSTILE.sub("_", name[:200])


def split_reference(reference: str, specs: Mapping[str, object]) -> tuple[str, str]:
    """``feature`` or ``feature.part`` -> (feature, part)."""
    if reference in specs:
        return reference, ""
    name, _, part = reference.rpartition(".")
    return (name, part) if part in PARTS and name in specs else (reference, "")


def references(template: str, specs: Mapping[str, object]) -> Iterator[str]:
    """The features a prose template speaks of."""
    for match in _PROSE.finditer(template):
        yield split_reference(match[1].partition(":")[0].strip(), specs)[0]


def placeholder_mistakes(
    template: str, specs: Mapping[str, object], code: bool = False
) -> Iterator[tuple[str, str]]:
    """(message, hint) of every placeholder that cannot be filled."""
    for match in (_CODE if code else _PROSE).finditer(template):
        reference, _, form = match[1].partition(":")
        name, part = split_reference(reference.strip(), specs)
        if name not in specs:
            yield f"unknown feature '{name}' in '{match[0]}'", did_you_mean(name, specs)
        if code and not match[2]:
            yield f"'{match[0]}' needs a default", f"write <<{match[1]}|value>>"
        if form and (code or part in ("where", "items") or not _FORMAT.fullmatch(form)):
            yield (
                f"format '{form}' in '{match[0]}' is not allowed",
                "use one like .2f, .0%, .3g, d, 'd step' or ,",
            )
    if not code and template.count("{") + template.count("}") != 2 * len(_PROSE.findall(template)):
        yield "unmatched brace", "braces enclose {feature} placeholders only"
