"""What one sample of a training step costs, counted on the meta device: nothing is computed or allocated."""
# ruff: noqa: N806 - tensors' names end in their shape

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from workers.episodes.schema import FAILURES, HORIZONS, SIGNALS
from workers.tasks.predictor.loss import Loss
from workers.tasks.predictor.model import Predictor, parameters
from workers.tasks.predictor.settings import TrainSettings

_BATCH = 64  # large enough for what does not grow with the batch to vanish in the rounding


def cost(settings: TrainSettings) -> dict[str, int]:
    """Parameters, and a sample's share of a step: FLOPs forward and backward, bytes kept for backward, input bytes."""
    saved: dict[int, int] = {}
    held: list[Tensor] = []  # keeps each tensor alive, so that no two have the same id

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        whole = tensor if tensor._base is None else tensor._base  # a view keeps all that it is a view of
        saved[id(whole)] = 0 if isinstance(whole, torch.nn.Parameter) else whole.nbytes
        return tensor

    with torch.device("meta"):
        model = Predictor(settings.model, settings.context, settings.dropout).train()
        x_BWS = torch.empty(2 * _BATCH, settings.context, len(SIGNALS))
        y_BHF = torch.empty(_BATCH, len(HORIZONS), len(FAILURES))
        loss = Loss(settings.horizon_weights, torch.ones(y_BHF.shape[1:]), settings.consistency, 0.0)
        with FlopCounterMode(display=False) as flops, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            logits = model(x_BWS)
            loss(logits[_BATCH:], logits[:_BATCH], y_BHF).backward()
    return {
        "parameters": parameters(model),
        "flopsPerSample": round(flops.get_total_flops() / _BATCH),
        "activationBytesPerSample": round(sum(saved.values()) / _BATCH),
        "bytesPerSample": (x_BWS.nbytes + y_BHF.nbytes) // _BATCH,
    }
