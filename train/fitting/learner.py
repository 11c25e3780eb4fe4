"""A network under training: forward pass, weight update, and moving average of the weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train.fitting.cuda_graphs import WithFeatures, graphed
from train.fitting.recipes import Recipe
from train.fitting.schedule import parameter_groups, unfreeze
from train.model.networks import NETWORKS, Classifier


def mixed_precision_type(device: torch.device) -> torch.dtype | None:
    """The type for mixed precision: bfloat16 on a GPU or CPU that supports it.

    A GPU without bfloat16 uses float16. A CPU without it uses none (None): emulation is slower.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Missing in older versions of torch.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    supported = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if supported else None


class Learner:
    """A network under training, with its optimizer, loss scaler and moving average."""

    def __init__(
        self,
        network: Classifier,
        name: str,
        recipe: Recipe,
        *,
        pretrained: bool,
        steps: int,
        device: torch.device,
        ranks: int = 1,
    ) -> None:
        """Train a network in place, in `steps` steps and `ranks` processes."""
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.architecture, self.device, self.ranks = NETWORKS[name], device, ranks
        self.clip = recipe.clip
        groups = parameter_groups(network, self.architecture, recipe, pretrained)
        self.optimizer = torch.optim.AdamW(list(groups), fused=True)
        self.half = mixed_precision_type(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half is torch.float16)
        decay = 1 - 1 / max(1.0, recipe.average * steps)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.unfrozen = 0
        self._model: nn.Module = self.network
        self._graph: WithFeatures | None = None
        self._graph_key: tuple[torch.Size, int] | None = None  # shape of the pixels, stages

    @property
    def averaged(self) -> Classifier:
        """The network with the moving average of the weights."""
        network = self.average.module
        assert isinstance(network, Classifier)
        return network

    def unfreeze(self, stages: int) -> None:
        """Make `stages` stages trainable, counted from the head."""
        unfreeze(self.network, self.architecture, stages)
        self.unfrozen = stages
        if self.ranks > 1:  # at construction it registers the trainable parameters
            self._model = DistributedDataParallel(self.network)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) and features (N, C, h, w) of pixels (N, S, S), in mixed precision."""
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            logits, features = self._callable_for(pixels)(pixels)
        return logits, features

    def _callable_for(self, pixels: Tensor) -> WithFeatures:
        """The network for pixels of this shape: on one GPU as a CUDA graph."""
        if self.device.type != "cuda" or self.ranks > 1:
            return WithFeatures(self.network, self._model)
        if self._graph is None or self._graph_key != (pixels.shape, self.unfrozen):
            self._graph = None  # frees its memory before recording
            self._graph = graphed(self.network, pixels, self.half)
            self._graph_key = (pixels.shape, self.unfrozen)
        return self._graph

    def update(self, loss: Tensor, learning_rate_share: float) -> None:
        """One optimizer step on a loss, at a share of the peak learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_share
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.network)

    def state(self) -> dict[str, Any]:
        """The state that `load` restores."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
