"""Hyperparameters under canonical names, and values to try next."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature, once
from analyzer.features.curves import Unavailable
from analyzer.hyperparameters import canonical
from analyzer.model import Measurement, Scalar

NUMERIC = {
    "learning_rate": "configured learning rate",
    "weight_decay": "configured weight decay",
    "batch_size": "configured batch size",
    "dropout": "configured dropout probability",
    "momentum": "configured momentum",
    "epochs": "configured number of epochs",
    "max_steps": "configured number of steps",
    "gradient_clip": "configured clip value of the gradient norm",
    "warmup_steps": "configured warm-up steps",
    "label_smoothing": "configured label smoothing",
    "patience": "configured patience of early stopping",
    "num_classes": "number of classes",
    "accumulate_grad_batches": "batches whose gradients are accumulated",
}


@once
def known(context: Context) -> dict[str, Scalar]:
    """The run's hyperparameters by the names that all writers' names for them stand for."""
    return canonical(context.run.hyperparameters)


def _register(name: str, meaning: str) -> None:
    @feature(f"hparam.{name}", "value", meaning, low=0)
    def configured(context: Context) -> Value:
        value = known(context).get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Unavailable(f"{name} is not among the hyperparameters", (name,))
        return float(value)


for _name, _meaning in NUMERIC.items():
    _register(_name, _meaning)


@feature("hparam.half_precision", "flag", "1 where the run is configured for fp16 (not bf16)", low=0, high=1)
def half_precision(context: Context) -> Value:
    value = known(context).get("precision")
    if value is None:
        raise Unavailable("the precision is not among the hyperparameters", ("precision",))
    text = str(value).lower()
    return float("16" in text and "bf" not in text)


def _round(value: float) -> float:
    """To two significant digits, so that a suggestion reads like one."""
    return float(f"{value:.1e}")


@feature("suggest.lower_lr", "value", "a learning rate to try: a fifth of this run's highest", low=0)
def lower_lr(context: Context) -> Value:
    return _round(context.value("lr.max") / 5)


@feature("suggest.higher_lr", "value", "a learning rate to try: five times this run's highest", low=0)
def higher_lr(context: Context) -> Value:
    return _round(context.value("lr.max") * 5)


@feature("suggest.clip_norm", "value", "a clip value to try: the gradient norm most steps stay below", low=0)
def clip_norm(context: Context) -> Value:
    """Median over the calmer half of the run, so that an explosion does not set its own bound."""
    curve = context.curve("grad_norm")
    curve.need(5)
    return _round(float(np.median(np.sort(curve.raw)[: max(3, curve.n // 2)])))


@feature("suggest.weight_decay", "value", "a weight decay to try: ten times this run's, at most 0.1", low=0)
def weight_decay(context: Context) -> Value:
    now = context.value("hparam.weight_decay")
    return min(0.1, _round(now * 10)) if now > 0 else 0.01


@feature("suggest.dropout", "value", "a dropout to try: 0.2 above this run's, at most 0.5", low=0, high=1)
def dropout(context: Context) -> Value:
    return min(0.5, round(context.value("hparam.dropout") + 0.2, 2))


@feature("suggest.batch_size", "count", "a batch size to try: four times this run's", low=1)
def batch_size(context: Context) -> Value:
    return 4 * context.value("hparam.batch_size")


@feature("suggest.warmup_steps", "count", "warm-up steps to try: a twentieth of the run", low=1)
def warmup_steps(context: Context) -> Value:
    if context.last_step < 20:
        raise Unavailable("the number of steps is not known", ("steps",))
    return float(round(context.last_step / 20))


@feature("suggest.total_steps", "count", "steps to train for next: twice this run's", low=1)
def total_steps(context: Context) -> Value:
    curve = context.curve("train_loss")
    curve.need(2)
    return float(round(2 * curve.steps[-1]))


@feature("suggest.epochs", "count", "epochs to train for next: twice this run's", low=1)
def epochs(context: Context) -> Value:
    return 2 * context.value("hparam.epochs")


@feature(
    "suggest.patience",
    "count",
    "evaluations to wait before stopping: half more than the longest wait that still led to a new best",
    low=1,
)
def patience(context: Context) -> Value:
    curve = context.curve("val_loss") if context.has("val_loss") else context.curve("val_metric")
    curve.need(5)
    lowest = np.minimum.accumulate(curve.cost)
    records = np.flatnonzero(np.diff(lowest, prepend=np.inf) < 0)
    longest = int(np.max(np.diff(records))) if len(records) > 1 else 2
    return Measurement(float(max(3, int(np.ceil(1.5 * longest)))))
