"""Templates of printed lines: what the numbers between certain words mean.

Every line is taken apart into words and numbers; the words are its template. What a template's
numbers mean (an epoch, an iteration, a metric) is decided once, from the words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from analyzer.ingest.json_rows import METRIC
from analyzer.ingest.printed.entries import UNSECTIONED, Entry, Plan, Slot, filled

MAX_NUMBERS = 60  # in one line
MAX_TEMPLATES = 50_000
MAX_SHAPES = 1000  # patterns compiled for lines that come often
SHAPES_OF_LEAD = 8
OFTEN = 3  # lines of one template after which its shape is worth a pattern
MAX_LABEL = 200  # characters before a number that may name it

DURATION = (  # behind its first number: 1h02m03s, 1 day, 2:03:04
    r"(?:(?:[dhm]\s?\d+)+[hms]|(?:\s+days?,\s+\d+)?:\d\d:\d\d(?:\.\d+)?)(?![A-Za-z0-9:])"
)
DATE = r"(?<=\d{4})(?:-\d\d-|/\d\d/)\d\d(?:[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?)?(?!\d)"
FIGURE = re.compile(
    r"(?<![A-Za-z0-9_@.])(?<![A-Za-z]-)(?!(?<=[A-Za-z]/)\d+(?:/[A-Za-z]|\s*[:=]))"  # act/3/zeros is one name
    r"([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?:nan|inf(?:inity)?)(?![A-Za-z0-9_])))"
    rf"({DURATION}|{DATE}|[A-Za-z%]*)",
    re.IGNORECASE,
)
ANY_FIGURE = r"((?>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?i:nan|inf(?:inity)?)(?![A-Za-z0-9_]))))"
LEAD = re.compile(r"[^\d]*")
SECTIONS = {
    **dict.fromkeys(("train", "training", "trn", "learn"), "train"),
    **dict.fromkeys(
        (
            "val",
            "valid",
            "validation",
            "validate",
            "validating",
            "dev",
            "eval",
            "evaluation",
            "saving dict",
            "cur metric",
        ),
        "val",  # of a TensorFlow estimator, of PaddleOCR
    ),
    **dict.fromkeys(("test", "testing"), "test"),
}
SECTION = re.compile(rf"(?<![\w./-])({'|'.join(SECTIONS)})(?![\w./-])", re.IGNORECASE)
EPOCH_LABEL = re.compile(
    r"(?:^|[^a-z])ep(?:och)?s?(?:[^a-z]*$|\s+(?:number|no|idx|index)\W*$)", re.IGNORECASE
)
PHASE = re.compile(r"\W*([A-Za-z][\w -]{0,29}?)[\s:-]+ep(?:och)?s?\W*", re.IGNORECASE)
INNER_LABEL = re.compile(
    r"(?:^|[^a-z])(?:global[_ ]?step|step|iter|iters|iteration|iterations|batch|batches|num_updates|updates?|it)s?[^a-z]*$",
    re.IGNORECASE,
)
METRIC_LABEL = re.compile(r"(?:loss|acc|accuracy)_(?:step|iter|batch|epoch)\W*$", re.IGNORECASE)
TOTAL_LABEL = re.compile(r"^[\s\])]*(?:/|of)[\s\[(]*$")
OPEN_LABEL = re.compile(r"(?:[\[(]|^\s*[:|])\s*$")
EPISODE_LABEL = re.compile(r"(?:^|[^a-z])episodes?[^a-z]*$", re.IGNORECASE)
GLOBAL_LABEL = re.compile(
    r"(?:^|[^a-z])(?:num_updates|global[_ ]?step|total[_ ]?(?:time)?steps?)[^a-z]*$", re.IGNORECASE
)
SCHEDULE = re.compile(r"(?<![A-Za-z_])lr\([A-Za-z_]+\)$")  # lr(Cosine)
WRAPPER = re.compile(r"(?:(?:torch\.)?tensor|array|np\.float\d*|float)\(\s*$")
SEPARATOR = re.compile(r"\s*(?::|=|\bis\b|->|\|)?\s*$")
PHRASES = re.compile(
    r"(?<=[a-z]{6})\.\s+(?=[A-Z])|[,;|{}<>()\[\]\t\"…•·│├└┌╰╭╎─]|(?<!\w)'|'(?!\w)|:\s|\s-+\s|-{2,}|\s{2,}|=\s"
)
FILLERS = frozenset(
    {"phase", "current", "the", "set", "so", "far", "average", "avg", "mean", "running", "epoch's"}
)
SUPERLATIVES = frozenset(
    {"best", "previous", "prev", "old", "target", "improved", "decreased", "increased", "reduced", "max", "min", "minimum", "maximum", "initial", "lowest",
     "highest", "final", "early", "patience", "threshold", "delta", "weight", "weights", "function", "from", "to"}
)  # fmt: skip
NOT_METRIC = re.compile(
    r"time|date|eta|^data$|speed|mem|gpu|cuda|seed|port|pid|rank|size|^len|count|(?<!/)(?<!loss_)total$|^num|^n$|version|elapsed|duration"
    r"|took|ips|fps|throughput|samples|tokens|^it$|^s$|^ms$|sec|device|workers|shape|param|layers|dim|kernel|stride"
    r"|padding|weight$|channels|features|width|height|^instances$|line|^id$|file|classes|ratio|beta|eps|dropout|^p$|degrees|(?<!loss_)(?<!grad_)(?<!loss)scale$"
    r"|^v_num$|^skipped$|copypaste|_cost$|^best[_-]|[_-]best$|^wps$|^ups$|^wpb$|^bsz$|train_wall|gb_free|^wall$|patience|remaining|scaler$",
    re.IGNORECASE,
)
LAYER_METRIC = re.compile(  # of a layer, whatever the layer is called
    r"(?:grad(?:ient)?s?|weight|param)_?norms?[/.]|[/.](?:grad|weight)_?norm$|^grad(?:ient)?s?/"
    r"|(?:zero|dead|saturat(?:ed|ion))_?(?:fraction|share|ratio|units)|^(?:dead|sparsity|saturation)\w*/|update_ratio",
    re.IGNORECASE,
)
RATES = re.compile(r"(?<![A-Za-z])lr\s*[:=]\s*\[\s*$", re.IGNORECASE)
SCALE_SET = re.compile(r"(?<![A-Za-z])loss[ _]scale to:?\s*$", re.IGNORECASE)
MEANS = frozenset({"average", "avg", "mean", "running"})
RUNNING = re.compile(r"so far|running", re.IGNORECASE)
LOOSE = re.compile(r"^\s*(\d+)\s+([A-Za-z_]\w*)\s+([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf))\s*$")
DARKNET = re.compile(r"\s*#:\s*#,\s*# avg(?: loss)?,\s*# rate,")  # the names behind the numbers

Labels = tuple[str, ...]


@dataclass(slots=True)
class Templates:
    """The templates met so far: their numbers, what they mean, and how often they came.

    ``shapes`` are patterns of whole lines, by the words before the first digit: a line that one of
    them matches need not be taken apart word by word.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    shapes: dict[str, list[tuple[re.Pattern[str], int]]] = field(default_factory=dict)
    compiled: int = 0
    columns: bool = False  # below the heading "Training | Validation"


def entry_of_words(text: str, at: int, clock: float | None, templates: Templates) -> Entry | None:
    """What a line says, or None where it says neither a metric nor a place in training."""
    lead = LEAD.match(text)
    for shape, known in templates.shapes.get(lead[0] if lead else "", ()):
        if match := shape.fullmatch(text):
            plan = templates.plans[known]
            figures = match.groups()
            return None if plan.says_nothing else filled(at, known, plan, list(map(float, figures)), clock)
    return _taken_apart(text, at, clock, templates)


def _taken_apart(text: str, at: int, clock: float | None, templates: Templates) -> Entry | None:
    parts = FIGURE.split(text)  # words, number, unit, words, number, unit, …, words
    labels, figures, units = tuple(parts[0::3]), parts[1::3], parts[2::3]
    if not figures or len(figures) > MAX_NUMBERS:
        return None
    marks = tuple("#" if not unit or unit == "%" else "#u" for unit in units)
    words = (" ".join(label.split()) for label in labels)
    name = " ".join(part for pair in zip(words, (*marks, ""), strict=True) for part in pair)
    known = _number(f"columns: {name}" if templates.columns else name, templates)
    if known is None:
        return None
    if known == len(templates.plans):
        templates.plans.append(plan_of(labels, marks, text, templates.columns))
        templates.lines.append(0)
    templates.lines[known] += 1
    if templates.lines[known] >= OFTEN:
        _learn(labels, units, known, templates)
    plan = templates.plans[known]
    return None if plan.says_nothing else filled(at, known, plan, list(map(float, figures)), clock)


def _number(name: str, templates: Templates) -> int | None:
    """The number of a template, a new one for a new template; None where there are too many."""
    if name not in templates.numbers and len(templates.numbers) >= MAX_TEMPLATES:
        return None
    return templates.numbers.setdefault(name, len(templates.numbers))


def _learn(labels: Labels, units: Sequence[str], known: int, templates: Templates) -> None:
    """Make a pattern of a line that came often; of each first words the latest few are kept."""
    if templates.compiled >= MAX_SHAPES:
        return
    words = [r"\s+".join(re.escape(word) for word in re.split(r"\s+", label)) for label in labels]
    between = [ANY_FIGURE + _any_unit(unit) + word for unit, word in zip(units, words[1:], strict=True)]
    lead = LEAD.match(labels[0])
    if lead is None or lead[0] != labels[0]:
        return  # a digit within the first words
    shapes = templates.shapes.setdefault(labels[0], [])
    shapes.insert(0, (re.compile(words[0] + "".join(between)), known))
    del shapes[SHAPES_OF_LEAD:]
    templates.compiled += 1


def _any_unit(unit: str) -> str:
    """The unit, or whatever duration or date is written like it."""
    return re.sub(r"\d+", r"\\d+", re.escape(unit))


def plan_of(labels: Labels, marks: tuple[str, ...], text: str, columns: bool) -> Plan:
    """What the numbers between these words mean."""
    loose = LOOSE.match(text)
    if loose:
        return _loose_plan(loose[2])
    if " rate," in text and DARKNET.match("#".join(labels)):
        return Plan(inner=0, slots=(Slot(1, "loss", ""), Slot(2, "avg_loss", ""), Slot(3, "lr", "")))
    epoch = inner = total = None
    slots: list[Slot] = []
    context = ""
    for at, mark in enumerate(marks):
        label = labels[at]
        follows = labels[at + 1]
        context += label
        counter = "" if METRIC_LABEL.search(label) else label
        if mark == "#u":
            continue
        is_total = bool(TOTAL_LABEL.match(label)) and at > 0
        if is_total and inner == at - 1:
            total = at
        elif is_total:
            continue
        elif EPOCH_LABEL.search(counter) or EPISODE_LABEL.search(counter) or _is_bracketed_epoch(at, labels):
            epoch = at if epoch is None else epoch
        elif GLOBAL_LABEL.search(counter):
            inner, total = at, None
        elif INNER_LABEL.search(counter) or _is_bracketed_counter(at, labels):
            inner = at if inner is None else inner
        elif re.fullmatch(r"\s*\(\s*", label) and slots and slots[-1].at == at - 1:
            slots[-1] = replace(slots[-1], mean_at=at)
        elif columns and len(marks) == 2 and (name := labels[0].strip(" |\t")) and METRIC.search(name):
            slots.append(Slot(at, f"{('train', 'val')[at]}_{name}", ("train", "val")[at]))
        elif inner is None and _is_numbered_value(at, labels, text):
            inner = at  # loss 6312: 0.15
        else:
            label = labels[at - 1] if inner == at - 1 and label.strip() == ":" else label
            found = _slot(at, label, follows, context, slots, epoch is not None or inner is not None)
            if found is not None:
                slots.append(found)
    episodes = epoch is not None and bool(EPISODE_LABEL.search(labels[epoch]))
    phase = "" if epoch is None else _phase(labels[epoch])
    return Plan(epoch, inner, total, _distinct(slots), episodes, phase)


def _phase(label: str) -> str:
    """``Fine-Tune`` of ``Fine-Tune Epoch``, but nothing of ``Train Epoch``."""
    match = PHASE.fullmatch(label)
    return "" if match is None or SECTION.search(match[1]) else match[1]


def _loose_plan(word: str) -> Plan:
    """``250 val 3.28``: a step, a word and a value and nothing else."""
    section = SECTIONS.get(word.lower(), "")
    if section:
        return Plan(inner=0, slots=(Slot(1, section, section, bare=True),))
    return Plan(inner=0, slots=(Slot(1, word, "", bare=not METRIC.search(word)),))


def _distinct(slots: list[Slot]) -> tuple[Slot, ...]:
    """One slot a tag: a repetition is a running average or another thing of the same name."""
    seen: dict[str, Slot] = {}
    for slot in sorted(slots, key=lambda slot: slot.mean):
        seen.setdefault(slot.tag, slot)
    return tuple(seen.values())


def _is_numbered_value(at: int, labels: Labels, text: str) -> bool:
    """``Validation loss 6312: 0.15``: a whole number between the name and the colon is the place."""
    label, follows = labels[at], labels[at + 1]
    if at + 2 >= len(labels) or follows.strip() != ":" or not METRIC.search(label[-12:]):
        return False
    return re.search(rf"{re.escape(label)}\d+\s*:", text) is not None and bool(
        re.search(r"[A-Za-z]\s+$", label)
    )


def _is_bracketed_counter(at: int, labels: Labels) -> bool:
    """``[0/60000`` and ``][10/5005]``, ``[1, 2000]`` after the epoch, ``[100]`` at the start of a line."""
    label, follows = labels[at], labels[at + 1]
    words = label.strip(" :|([])-\t").lower()
    if OPEN_LABEL.search(label) and TOTAL_LABEL.match(follows):
        return not words or words in SECTIONS
    if at == 1 and _is_bracketed_epoch(0, labels) and label.strip() == ",":
        return True
    if at == 0 and follows[:1] == ":" and not label.strip():  # 20: learn …
        return follows[1:2].isspace()
    return at == 0 and label.strip() == "[" and follows.lstrip().startswith("]") and len(follows.strip()) > 1


def _is_bracketed_epoch(at: int, labels: Labels) -> bool:
    """``[1, 2000]`` and ``[1/5][50/1583]`` at the start of a line, ``Train: 0 [`` before a counter."""
    label, follows = labels[at], labels[at + 1]
    if at == 0 and label.strip() == "[" and len(labels) > at + 2:
        if follows.strip() == ",":
            return labels[at + 2].lstrip().startswith("]")
        return follows.strip() == "/" and bool(re.match(r"\]\s*\[", labels[at + 2]))
    named = SECTION.fullmatch(label.strip(" :"))
    return at == 0 and named is not None and follows.strip() in {"[", ":["}


def _slot(at: int, label: str, follows: str, context: str, before: list[Slot], placed: bool) -> Slot | None:
    """The metric a number is, from the words before it; None if it is none."""
    wrapped = WRAPPER.sub("", label.rstrip()[-MAX_LABEL:]).rstrip(" ([{'\"")
    if re.search(r"[\[(]\s*$", label) and re.fullmatch(r"\s*,?\s*", follows) and not RATES.search(label):
        return None  # a vector; of the rates of parameter groups the first
    if SCALE_SET.search(label):
        return Slot(at, "loss_scale", "")
    body = SEPARATOR.sub("", wrapped).rstrip("'\"")
    if body.endswith(")"):
        body = SCHEDULE.sub("lr", body)
    explicit = wrapped.rstrip().endswith((":", "=")) or wrapped.rstrip().endswith(" is")
    phrase = PHRASES.split(body)[-1].strip(" *#>~.!?-&+\\/_")
    words = [word.removesuffix("'s") for word in phrase.split()]
    if not words or len(words) > 6 or any(word.lower() in SUPERLATIVES for word in words):
        return None
    section = next((SECTIONS[word.lower()] for word in words if word.lower() in SECTIONS), "")
    kept = [word for word in words if word.lower() not in FILLERS and word.lower() not in SECTIONS]
    if not kept:
        return _bare_slot(at, section, before) if section and not label.rstrip().endswith("(") else None
    if UNSECTIONED.fullmatch(kept[-1]) and any(NOT_METRIC.search(word) for word in kept[:-1]):
        kept = kept[-1:]  # 60.1/s/gpu LR: 0.001
    name = "_".join(
        word.lower() if word.isalpha() and (word.isupper() or word.istitle()) else word for word in kept
    )
    known = name == "grad" and bool(before)
    if len(kept) > 3 or not (known or _is_metric(kept, name, explicit and (placed or bool(before)))):
        return None
    if LAYER_METRIC.search(name):
        return Slot(at, name, "")
    if not section and not UNSECTIONED.fullmatch(name) and not names_section(name):
        section = last_section(context[: len(context) - len(label)] + label[: label.rfind(phrase)])
    tag = f"{section}_{name}" if section and not UNSECTIONED.fullmatch(name) else name
    fraction = bool(re.fullmatch(r"\s*/\s*", follows)) and bool(re.search("acc|correct", name, re.IGNORECASE))
    return Slot(
        at,
        tag,
        section or names_section(name),
        fraction=fraction,
        running=bool(RUNNING.search(body)),
        mean=any(word.lower() in MEANS for word in words),
    )


def _bare_slot(at: int, section: str, before: list[Slot]) -> Slot:
    """``LOSS train 1.6 valid 1.5``: the second takes the name of the first."""
    named = next((slot for slot in reversed(before) if slot.section and not slot.bare), None)
    if named is not None:
        name = named.tag.removeprefix(f"{named.section}_")
        return Slot(at, f"{section}_{name}", section)
    return Slot(at, section, section, bare=True)


def _is_metric(words: list[str], name: str, anything: bool) -> bool:
    """A metric by its name, or any single identifier with a colon on a line that says where it stands."""
    if len(words) == 1 and LAYER_METRIC.search(name):
        return bool(re.fullmatch(r"[A-Za-z_][\w./-]*", name))
    if name.lower() in ("loss_scale", "grad_scale"):
        return True
    if any(NOT_METRIC.search(word) for word in words):
        return False
    if METRIC.search("_".join(words[-2:])) or name == "norm":
        return all(re.fullmatch(r"[A-Za-z_][\w./@%()'-]*|@?\d+", word) for word in words)
    return anything and len(words) == 1 and bool(re.fullmatch(r"[A-Za-z_][\w./@%-]{0,39}", name))


def names_section(name: str) -> str:
    """The section an identifier names itself: ``val_loss``, ``loss/test``."""
    parts = re.split(r"[_./-]", name.lower())
    return next((SECTIONS[part] for part in (parts[0], parts[-1]) if part in SECTIONS), "")


def last_section(text: str) -> str:
    found = SECTION.findall(text)
    return SECTIONS[found[-1].lower()] if found else ""
