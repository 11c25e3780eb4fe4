"""A network and what changes its weights: forward, update, and the moving average of them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train.convolution import Matrices
from train.networks import NETWORKS, Classifier
from train.recipes import Recipe
from train.replay import WithFeatures, graphed
from train.schedule import parameter_groups, unfreeze


def half(device: torch.device) -> torch.dtype | None:
    """The type for mixed precision: bfloat16 where the processor multiplies it, CPUs included.

    A GPU without it takes float16, a CPU without it none: there it would be emulated, and slower.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch can't tell
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else None


def convolution(device: torch.device) -> AbstractContextManager[Any]:
    """How a step's convolutions are computed: by matrices in half precision on a CPU."""
    by_matrices = device.type == "cpu" and half(device) is not None
    return Matrices() if by_matrices else nullcontext()


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
        """Train this network, in place, in so many steps; `ranks` processes train it together."""
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.architecture, self.device, self.ranks = NETWORKS[name], device, ranks
        self.clip = recipe.clip
        groups = parameter_groups(network, self.architecture, recipe, pretrained)
        self.optimizer = torch.optim.AdamW(list(groups), fused=True)
        self.half = half(device)
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
        self._graph_of: tuple[torch.Size, int] | None = None  # pixels' shape, stages that learned

    @property
    def averaged(self) -> Classifier:
        """The network with the moving average of the weights."""
        network = self.average.module
        assert isinstance(network, Classifier)
        return network

    def unfreeze(self, stages: int) -> None:
        """Let so many stages learn, from the head."""
        unfreeze(self.network, self.architecture, stages)
        self.unfrozen = stages
        if self.ranks > 1:  # it gathers the gradients of what learns when it is made
            self._model = DistributedDataParallel(self.network)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) and features (N, C, h, w) of pixels (N, S, S), in the mixed precision."""
        with (
            torch.autocast(self.device.type, self.half, enabled=self.half is not None),
            convolution(self.device),
        ):
            logits, features = self._passes(pixels)(pixels)
        return logits, features

    def _passes(self, pixels: Tensor) -> WithFeatures:
        """The network as it answers such pixels: on one GPU as a graph of this shape."""
        if self.device.type != "cuda" or self.ranks > 1:
            return WithFeatures(self.network, self._model)
        if self._graph is None or self._graph_of != (pixels.shape, self.unfrozen):
            self._graph = None  # its memory is free again
            self._graph = graphed(self.network, pixels, self.half)
            self._graph_of = (pixels.shape, self.unfrozen)
        return self._graph

    def update(self, loss: Tensor, learning_rate_share: float) -> None:
        """One step down the gradient of a loss, at that share of the peak learning rates."""
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
        """What `load` goes on from."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
