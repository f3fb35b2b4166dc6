"""The predictor's loss. Shapes as in model.py: B samples · H horizons · F failure types."""
# ruff: noqa: N803, N806, N815 - tensors' names end in their shape

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

LARGEST_POS_WEIGHT = 20.0


@dataclass(frozen=True)
class Loss:
    """Weighted binary cross entropy and a price for predictions that jump from one timestep to the next."""

    horizon_weights: tuple[float, ...]
    pos_weight_HF: Tensor
    consistency: float
    label_smoothing: float

    def __call__(self, logits_BHF: Tensor, before_BHF: Tensor | None, y_BHF: Tensor) -> Tensor:
        """The mean over the B samples, a scalar; `before_BHF`: logits one timestep earlier (None: not priced)."""
        smooth_BHF = y_BHF * (1 - self.label_smoothing) + self.label_smoothing / 2
        entropy_BHF = binary_cross_entropy_with_logits(
            logits_BHF, smooth_BHF, pos_weight=self.pos_weight_HF, reduction="none"
        )
        weights_H1 = logits_BHF.new_tensor(self.horizon_weights)[:, None]
        loss = (entropy_BHF * weights_H1).mean()
        if before_BHF is not None and self.consistency:
            loss = loss + self.consistency * (logits_BHF.sigmoid() - before_BHF.sigmoid()).square().mean()
        return loss


def balanced_pos_weight(y_NHF: Tensor) -> Tensor:
    """Negatives a positive of each output (H, F), at most 20; 1 for an output without positives.

    y_NHF: labels 0 or 1 of the training split.
    """
    positives_HF = y_NHF.float().sum(0)
    ratio_HF = (len(y_NHF) - positives_HF) / positives_HF.clamp(min=1)
    return torch.where(positives_HF > 0, ratio_HF.clamp(max=LARGEST_POS_WEIGHT), torch.ones_like(ratio_HF))
