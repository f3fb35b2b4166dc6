"""The failure predictor: a window of the arm's signals in, the chance of each failure at each horizon out.

Shapes: B samples · W timesteps of context · S = 12 signals · H = 4 horizons · F = 4 failure types.
"""
# ruff: noqa: N803, N806, N815 - tensors' names end in their shape

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from workers.episodes.schema import FAILURES, HORIZONS, SIGNALS


@dataclass(frozen=True)
class Size:
    hidden: tuple[int, ...]
    dropout: float


# small: the source's proof of concept had 35 k parameters, its layers are not known. medium: ours, between the two.
# large: the source's layers; on one timestep they have 208 k parameters, on ten 222 k, where it says 150–200 k.
SIZES = {
    "small": Size((128, 96, 64), 0.1),
    "medium": Size((192, 192, 128, 64), 0.1),
    "large": Size((128, 256, 256, 256, 128, 64), 0.3),
}


class Predictor(nn.Module):
    """MLP over x_BWS, raw signals, oldest timestep first; returns logits_BHF.

    `mean_S` and `deviation_S` of the training split are buffers: weights and normalisation cannot be mixed up.
    """

    mean_S: Tensor
    deviation_S: Tensor

    def __init__(self, size: str, context: int, dropout: float | None = None) -> None:
        super().__init__()
        share = SIZES[size].dropout if dropout is None else dropout
        widths = (context * len(SIGNALS), *SIZES[size].hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(share)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], len(HORIZONS) * len(FAILURES)))
        self.register_buffer("mean_S", torch.zeros(len(SIGNALS)))
        self.register_buffer("deviation_S", torch.ones(len(SIGNALS)))

    def forward(self, x_BWS: Tensor) -> Tensor:
        """Logits (B, H, F) float of windows (B, W, S) float."""
        z_BWS = (x_BWS - self.mean_S) / self.deviation_S
        return self.layers(z_BWS.flatten(1)).unflatten(1, (len(HORIZONS), len(FAILURES)))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
