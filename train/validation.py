"""The figures that choose the best epoch, and when to stop waiting for a better one."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, distributed, nn

from train import calibrate
from train.networks import Classifier, predict


def validate(
    network: Classifier, pixels: Tensor, labels: npt.NDArray[np.int64], size: int
) -> tuple[float, float]:
    """Log-loss, calibrated, and AUC on pixels (N, S, S) with labels (N,), seen at `size` pixels.

    Calibrated on these very images, by temperature and offset, since a finished network is too:
    what is left is how well the classes are told apart. Of several processes each gets the figures
    of the first: BatchNorm's statistics differ by rank, the decision must not.
    """
    logits = predict(network, pixels, size).double().numpy()
    scores = calibrate.fit(logits, labels).scores(logits)
    figures = [
        log_loss(labels, scores, labels=[0, 1]),
        roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
    ]
    if distributed.is_initialized():
        distributed.broadcast_object_list(figures, src=0)
    return float(figures[0]), float(figures[1])


class EarlyStopping:
    """Keeps the weights of the best epoch; spent after `patience` epochs without a better one."""

    def __init__(self, patience: int) -> None:
        """Before the first epoch."""
        self.patience = patience
        self.best: dict[str, Tensor] = {}  # weights by name, on the CPU
        self._figures = (-math.inf, -math.inf)  # negative loss, AUC
        self._waited = 0

    @property
    def spent(self) -> bool:
        """Whether training should stop."""
        return self._waited >= self.patience

    def update(self, network: nn.Module, loss: float, auc: float) -> bool:
        """Judge an epoch by its validation loss, then by its AUC; whether it is the best so far."""
        # Not the AUC first: near 1 it moves by a few pairs of images.
        better = (-loss, auc) > self._figures
        if better:
            self._figures, self._waited = (-loss, auc), 0
            self.best = {
                name: value.detach().cpu().clone() for name, value in network.state_dict().items()
            }
        else:
            self._waited += 1
        return better

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {"best": self.best, "best_figures": self._figures, "waited": self._waited}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.best, self._figures = state["best"], state["best_figures"]
        self._waited = state["waited"]
