"""What is trained: one program per pair of task and model, each in one of two parts.

``tune`` programs may be looked at while rules are changed; ``report`` programs only give figures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.make_sample_logs import (
    ALPHABET,
    blobs,
    digit_images,
    flat_digits,
    grammar_text,
    random,
    teacher_regression,
    windows,
)

Data = tuple[Tensor, Tensor]
RATES = {"adamw": 4e-3, "momentum": 0.02, "sgd": 0.1}


@dataclass(frozen=True)
class Program:
    """``data(n, seed)`` gives inputs and targets, ``model(width, dropout, act)`` a fresh network.

    ``good`` is about the training loss an ordinary run ends at, in the unit of ``loss``.
    """

    name: str
    part: str
    kind: str  # classification, regression, language, segmentation or density
    data: Callable[[int, int], Data]
    model: Callable[[float, float, type[nn.Module]], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    good: float
    n: int = 1600
    batch: int = 40
    epochs: int = 16
    rates: dict[str, float] = field(default_factory=lambda: RATES)
    adaptive: bool = False  # ordinary runs are by Adam only
    tokens: bool = False  # inputs are indices, which cannot be scaled

    @property
    def labelled(self) -> bool:
        """Whether targets are classes, so that there is an accuracy."""
        return self.kind in ("classification", "language", "segmentation")

    @property
    def plain(self) -> bool:
        """Whether it is a stack of layers, into which a fault can reach by position."""
        return isinstance(self.model(1.0, 0.0, nn.ReLU), nn.Sequential)


def stack(sizes: list[int], dropout: float, act: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), act()] + [nn.Dropout(dropout)] * (dropout > 0)
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def wide(units: int, width: float) -> int:
    return max(1, round(units * width))


def mlp(inputs: int, outputs: int, units: int = 40, depth: int = 2) -> Callable[..., nn.Module]:
    def build(width: float, dropout: float, act: type[nn.Module]) -> nn.Module:
        return stack([inputs, *[wide(units, width)] * depth, outputs], dropout, act)

    return build


def cnn(width: float, dropout: float, act: type[nn.Module]) -> nn.Module:
    """[n, 1, 12, 12] -> [n, 10]."""
    a, b = wide(6, width), wide(12, width)
    convolutions = [nn.Conv2d(1, a, 3, 2, 1), act(), nn.Conv2d(a, b, 3, 2, 1), act(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Dropout(dropout), nn.Linear(9 * b, 10))


def signal_cnn(width: float, dropout: float, act: type[nn.Module]) -> nn.Module:
    """[n, 1, 32] -> [n, 1]."""
    a = wide(10, width)
    convolutions = [nn.Conv1d(1, a, 5, 2, 2), act(), nn.Conv1d(a, a, 5, 2, 2), act(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Dropout(dropout), nn.Linear(8 * a, 1))


class Recurrent(nn.Module):
    """A GRU over [n, length, inputs] or letters [n, length]; one answer at the end or one per place."""

    def __init__(self, inputs: int, units: int, outputs: int, letters: bool, dropout: float) -> None:
        super().__init__()
        self.letters = letters
        self.enter = nn.Embedding(inputs, 12) if letters else nn.Identity()
        self.core = nn.GRU(12 if letters else inputs, units, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.core(self.enter(x))
        return self.head(self.drop(states if self.letters else states[:, -1]))


class Transformer(nn.Module):
    """Letters [n, length] -> logits [n, length, letters]; two pre-norm blocks."""

    def __init__(self, letters: int, units: int, dropout: float) -> None:
        super().__init__()
        units = max(4, units // 4 * 4)
        self.enter = nn.Embedding(letters, units)
        self.place = nn.Parameter(0.02 * torch.randn(64, units))
        block = {"nhead": 2, "dim_feedforward": 2 * units, "dropout": dropout, "batch_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(units, norm_first=True, **block) for _ in range(2)
        )
        self.head = nn.Linear(units, letters)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        ahead = torch.full((length, length), -math.inf).triu(1)
        h = self.enter(x) + self.place[:length]
        for block in self.blocks:
            h = block(h, src_mask=ahead)
        return self.head(h)


class Reader(nn.Module):
    """Symbols [n, length] -> logits [n, classes]; two pre-norm blocks, their mean read out."""

    def __init__(self, symbols: int, units: int, classes: int, dropout: float) -> None:
        super().__init__()
        units = max(4, units // 4 * 4)
        self.enter = nn.Embedding(symbols, units)
        self.place = nn.Parameter(0.02 * torch.randn(64, units))
        block = {"nhead": 2, "dim_feedforward": 2 * units, "dropout": dropout, "batch_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(units, norm_first=True, **block) for _ in range(2)
        )
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x) + self.place[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(1))


class Variational(nn.Module):
    """Pictures [n, inputs] -> mean of their likelihood and, in the last column, the divergence of the code."""

    def __init__(self, inputs: int, units: int, code: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = stack([inputs, units, 2 * code], 0.0, act)
        self.decoder = stack([code, units, inputs], 0.0, act)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_var = self.encoder(x).chunk(2, -1)
        log_var = log_var.clamp(-8, 8)
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1, keepdim=True)
        return torch.cat([self.decoder(code), divergence], -1)


def segmenter(width: float, dropout: float, act: type[nn.Module]) -> nn.Module:
    """[n, 1, 12, 12] -> logits [n, 12, 12, 2]."""
    a = wide(8, width)
    inner = [nn.Conv2d(1, a, 3, 1, 1), act(), nn.Conv2d(a, a, 3, 1, 1), act(), nn.Dropout(dropout)]
    return nn.Sequential(*inner, nn.Conv2d(a, 2, 1), ChannelsLast())


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class Residual(nn.Module):
    """[n, inputs] -> [n, outputs] by two pre-norm residual blocks."""

    def __init__(self, inputs: int, units: int, outputs: int, dropout: float, act: type[nn.Module]) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, units)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(units),
                nn.Linear(units, units),
                act(),
                nn.Dropout(dropout),
                nn.Linear(units, units),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


class Mixture(nn.Module):
    """Log-density [n, 1] of points [n, 2] under a mixture of round Gaussians."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(components, 2))
        self.log_scale = nn.Parameter(torch.full((components,), -0.7))
        self.logit = nn.Parameter(torch.zeros(components))

    def forward(self, x: Tensor) -> Tensor:
        away = ((x[:, None] - self.weight) ** 2).sum(-1) / (2 * torch.exp(2 * self.log_scale))
        each = -away - 2 * self.log_scale - math.log(2 * math.pi) + self.logit.log_softmax(0)
        return each.logsumexp(1, keepdim=True)


def letters(n: int, seed: int) -> Data:
    text = windows(grammar_text(400, seed), 33, n, seed)
    return text[:, :-1], text[:, 1:]


def digit_rows(n: int, seed: int) -> Data:
    images, labels = digit_images(n, seed, 0.3, shift=1)
    return images[:, 0], labels


def pictures(n: int, seed: int) -> Data:
    images, _ = flat_digits(n, seed, 0.2)
    return images, images.clone()


def tight_curve(n: int, seed: int) -> Data:
    """Answers with little noise, whose density is far above one."""
    return teacher_regression(n, seed, inputs=6, noise=0.03)


def signals(n: int, seed: int) -> Data:
    """Noisy sines [n, 1, 32] and their frequencies, standardised."""
    gen = random(seed)
    frequency, phase = torch.rand(n, 1, generator=gen), 6.28 * torch.rand(n, 1, generator=gen)
    x = torch.sin((0.1 + 0.5 * frequency) * torch.arange(32) + phase)
    return (x + 0.2 * torch.randn(n, 32, generator=gen))[:, None], (frequency - 0.5) / 0.29


def ring(n: int, seed: int) -> Data:
    """Points near a ring of radius a half; the targets are not used."""
    gen = random(seed)
    angle = 6.28 * torch.rand(n, generator=gen)
    points = 0.5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.03 * torch.randn(n, 2, generator=gen)
    return points, torch.zeros(n, 1)


def chains(n: int, seed: int) -> Data:
    """Walks [n, 24] through one of six fixed random graphs over ten symbols; which graph it was."""
    odds = (2.0 * torch.randn(6, 10, 10, generator=random(5))).softmax(-1)
    gen = random(seed)
    kind, at = torch.randint(6, (n,), generator=gen), torch.randint(10, (n,), generator=gen)
    walk = [at]
    for _ in range(23):
        at = torch.multinomial(odds[kind, at], 1, generator=gen)[:, 0]
        walk.append(at)
    return torch.stack(walk, 1), kind


def waves(n: int, seed: int) -> Data:
    """Points [n, 8] and a smooth function of two of their projections, standardised."""
    fixed, gen = random(13), random(seed)
    x = torch.randn(n, 8, generator=gen)
    a, b = (x @ (torch.randn(8, 2, generator=fixed) / 3)).T
    y = torch.sin(2 * a) + b * torch.cos(a)
    return x, (y / 0.95 + 0.15 * torch.randn(n, generator=gen))[:, None]


def masks(n: int, seed: int) -> Data:
    """Digits in noise and which of their pixels are ink."""
    images, _ = digit_images(n, seed, 0.25, shift=3)
    clean, _ = digit_images(n, seed, 0.0, shift=3)
    return images, (clean[:, 0] > 0).long()


def place_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, -2), target.flatten())


def gaussian_nll(output: Tensor, target: Tensor) -> Tensor:
    mean, log_scale = output[:, :1], output[:, 1:].clamp(-6, 6)
    return (0.5 * ((target - mean) / log_scale.exp()) ** 2 + log_scale + 0.919).mean()


def negative_elbo(output: Tensor, target: Tensor) -> Tensor:
    """Per example, with a Gaussian likelihood of fixed width."""
    away = (output[:, :-1] - target) / 0.5
    return (0.5 * away.square() - 0.693 + 0.919).sum(-1).mean() + output[:, -1].mean()


def minus_mean(output: Tensor, target: Tensor) -> Tensor:
    return -output.mean()


LETTERS = len(ALPHABET)
PROGRAMS = {
    p.name: p
    for p in (
        Program(
            "digits-mlp",
            "tune",
            "classification",
            lambda n, seed: flat_digits(n, seed, 0.35),
            mlp(144, 10),
            F.cross_entropy,
            0.1,
        ),
        Program(
            "digits-cnn",
            "tune",
            "classification",
            lambda n, seed: digit_images(n, seed, 0.3, shift=1),
            cnn,
            F.cross_entropy,
            0.1,
        ),
        Program(
            "teacher-mlp",
            "tune",
            "regression",
            lambda n, seed: teacher_regression(n, seed, noise=0.3),
            mlp(16, 1),
            F.mse_loss,
            0.09,
        ),
        Program(
            "letters-gru",
            "tune",
            "language",
            letters,
            lambda width, dropout, act: Recurrent(LETTERS, wide(32, width), LETTERS, True, dropout),
            place_entropy,
            0.5,
            n=600,
            batch=30,
            epochs=14,
            tokens=True,
            rates={"adamw": 1e-2, "momentum": 0.15, "sgd": 1.0},
            adaptive=True,
        ),
        Program(
            "curve-density",
            "tune",
            "density",
            tight_curve,
            mlp(6, 2),
            gaussian_nll,
            -0.9,
            epochs=20,
            rates={"adamw": 3e-3, "momentum": 0.004, "sgd": 0.02},
        ),
        Program(
            "chains-transformer",
            "tune",
            "classification",
            chains,
            lambda width, dropout, act: Reader(10, wide(24, width), 6, dropout),
            F.cross_entropy,
            0.1,
            n=1000,
            batch=40,
            epochs=12,
            rates={"adamw": 5e-3, "momentum": 0.1, "sgd": 0.5},
            tokens=True,
        ),
        Program(
            "digits-vae",
            "tune",
            "density",
            pictures,
            lambda width, dropout, act: Variational(144, wide(48, width), max(1, wide(8, width)), act),
            negative_elbo,
            102.0,
            rates={"adamw": 3e-3, "momentum": 6e-4, "sgd": 5e-3},
        ),
        Program(
            "waves-mlp",
            "report",
            "regression",
            waves,
            mlp(8, 1, 48, 3),
            F.mse_loss,
            0.06,
        ),
        Program(
            "ink-segmenter",
            "report",
            "segmentation",
            masks,
            segmenter,
            place_entropy,
            0.1,
            n=600,
            batch=20,
            epochs=12,
            rates={"adamw": 5e-3, "momentum": 0.1, "sgd": 1.0},
        ),
        Program(
            "rows-gru",
            "report",
            "classification",
            digit_rows,
            lambda width, dropout, act: Recurrent(12, wide(24, width), 10, False, dropout),
            F.cross_entropy,
            0.1,
            rates={"adamw": 6e-3, "momentum": 0.1, "sgd": 0.6},
        ),
        Program(
            "letters-transformer",
            "report",
            "language",
            letters,
            lambda width, dropout, act: Transformer(LETTERS, wide(24, width), dropout),
            place_entropy,
            0.5,
            n=600,
            batch=30,
            epochs=14,
            tokens=True,
            rates={"adamw": 6e-3, "momentum": 0.3, "sgd": 1.5},
        ),
        Program(
            "digits-autoencoder",
            "report",
            "regression",
            pictures,
            mlp(144, 144, 24),
            F.mse_loss,
            0.17,
            rates={"adamw": 3e-3, "momentum": 0.5, "sgd": 3.0},
        ),
        Program("signal-cnn", "report", "regression", signals, signal_cnn, F.mse_loss, 0.05),
        Program(
            "blobs-residual",
            "report",
            "classification",
            lambda n, seed: blobs(n, seed, spread=1.5),
            lambda width, dropout, act: Residual(20, wide(24, width), 8, dropout, act),
            F.cross_entropy,
            0.1,
        ),
        Program(
            "ring-mixture",
            "report",
            "density",
            ring,
            lambda width, dropout, act: Mixture(wide(16, width)),
            minus_mean,
            -0.6,
            epochs=24,
            rates={"adamw": 6e-2, "momentum": 0.15, "sgd": 1.0},
            adaptive=True,
        ),
    )
}
