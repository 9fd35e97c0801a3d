"""What `bench.optim` moves: five sets of parameters, each those of a model that can train, and the optimizers' options.

| set | parameters | tensors | model and batch of the loop |
|---|---|---|---|
| mlp | 9,610 | 4 | 64-128-10, 32 digits |
| lenet | 225,766 | 10 | two 5x5 convolutions and 1568-128-84-10, 32 images of 28x28 |
| resnet18 | 11,689,512 | 62 | He et al. 2015, 1,000 classes, 4 images of 64x64 |
| gpt2 | 124,439,808 | 148 | GPT-2 small with a tied head, 16 tokens |
| tensor50m | 50,000,000 | 1 | one matrix, 10,000 to 5,000, 1 row |

The data are random: what is timed does not depend on it. Batches are small, so that the update is a share of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import optim_core

LR = 1e-6  # a preset gradient moves a parameter several 100,000 times: it stays within about 1
GRADIENT = 1e-2  # the largest size of an element: no square of one is denormal

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Optimizer:
    """A class of `optim_core` and `torch.optim`, its options and the least memory its step moves."""

    kind: str
    options: dict[str, Any]
    bytes_per_parameter: int
    """float32: parameter, gradient and state read once, parameter and state written once."""


OPTIMIZERS = {
    "sgd": Optimizer("SGD", {}, 12),
    "momentum": Optimizer("SGD", {"momentum": 0.9}, 20),
    "nesterov": Optimizer("SGD", {"momentum": 0.9, "nesterov": True}, 20),
    "adam": Optimizer("Adam", {}, 28),
    "adamw": Optimizer("AdamW", {}, 28),
    "amsgrad": Optimizer("Adam", {"amsgrad": True}, 36),
}

PEERS: dict[str, dict[str, Any]] = {
    "default": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
"""torch's implementations, and what chooses them."""


def build_ours(name: str, params: Iterable[nn.Parameter]) -> optim_core.SGD | optim_core.Adam:
    optimizer = OPTIMIZERS[name]
    ours: optim_core.SGD | optim_core.Adam = getattr(optim_core, optimizer.kind)(params, lr=LR, **optimizer.options)
    return ours


def build_peer(name: str, params: Iterable[nn.Parameter], peer: str) -> torch.optim.Optimizer:
    optimizer = OPTIMIZERS[name]
    theirs: torch.optim.Optimizer = getattr(torch.optim, optimizer.kind)(
        params, lr=LR, **optimizer.options, **PEERS[peer]
    )
    return theirs


@dataclass(frozen=True)
class ParameterSet:
    """`model` maps the inputs of `batch` to logits [rows, classes], its targets are classes [rows]."""

    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),  # [N, 16, 14, 14]
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),  # [N, 32, 7, 7]
        *(nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the width changes."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.body = nn.Sequential(
            *(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()),
            *(nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)),
        )
        wider = (nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Sequential() if stride == 1 else nn.Sequential(*wider)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(ResidualBlock(n_in, n_out) for n_in, n_out in pairwise(widths)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)),
    )


class TransformerBlock(nn.Module):
    """Causal attention with 12 heads and a feed-forward layer, each behind a layer norm."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, 12, width // 12).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # [batch, 12, length, width / 12]
        x = x + self.merge(mixed.transpose(1, 2).reshape(batch, length, width))
        fed: Tensor = self.feed(self.norm2(x))
        return x + fed


class GPT2(nn.Module):
    """GPT-2 small (Radford et al. 2019) without dropout; the head is the token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50_257, 768), nn.Embedding(1_024, 768)
        self.blocks, self.norm = nn.Sequential(*(TransformerBlock() for _ in range(12))), nn.LayerNorm(768)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight).flatten(0, 1)


def tensor50m() -> nn.Module:
    return nn.Linear(10_000, 5_000, bias=False)


def images(*shape: int, classes: int) -> Callable[[], Batch]:
    return lambda: (torch.rand(shape), torch.randint(classes, shape[:1]))


SETS = {
    "mlp": ParameterSet(mlp, images(32, 64, classes=10)),
    "lenet": ParameterSet(lenet, images(32, 1, 28, 28, classes=10)),
    "resnet18": ParameterSet(resnet18, images(4, 3, 64, 64, classes=1_000)),
    "gpt2": ParameterSet(GPT2, lambda: (torch.randint(50_257, (1, 16)), torch.randint(50_257, (16,)))),
    "tensor50m": ParameterSet(tensor50m, images(1, 10_000, classes=5_000)),
}
