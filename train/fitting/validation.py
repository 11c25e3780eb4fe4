"""Validation after an epoch, and early stopping."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, distributed, nn

from train.metrics import calibration
from train.model.networks import Classifier, predict


def validate(
    network: Classifier, pixels: Tensor, labels: npt.NDArray[np.int64], size: int
) -> tuple[float, float]:
    """Calibrated log-loss and AUC on pixels (N, S, S), resized to `size`, with labels (N,).

    Temperature and offset are fitted on these images, as a finished network is calibrated too, so
    that the loss measures only how well the classes are separated. Several processes all return
    the figures of the first: BatchNorm statistics differ by rank, the decision must not.
    """
    logits = predict(network, pixels, size).double().numpy()
    scores = calibration.fit(logits, labels).scores(logits)
    figures = [
        log_loss(labels, scores, labels=[0, 1]),
        roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
    ]
    if distributed.is_initialized():
        distributed.broadcast_object_list(figures, src=0)
    return float(figures[0]), float(figures[1])


class EarlyStopping:
    """Keeps the weights of the best epoch; stops `patience` epochs after it."""

    def __init__(self, patience: int) -> None:
        """Start before the first epoch."""
        self.patience = patience
        self.best: dict[str, Tensor] = {}  # weights by name, on the CPU
        self._best_figures = (-math.inf, -math.inf)  # negative loss, AUC
        self._epochs_waited = 0

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self._epochs_waited >= self.patience

    def update(self, network: nn.Module, loss: float, auc: float) -> bool:
        """Record an epoch; True if it is the best, by validation loss and then by AUC."""
        # Not by the AUC first: near 1 it depends on a few pairs of images.
        better = (-loss, auc) > self._best_figures
        if better:
            self._best_figures, self._epochs_waited = (-loss, auc), 0
            self.best = {
                name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()
            }
        else:
            self._epochs_waited += 1
        return better

    def state(self) -> dict[str, Any]:
        """The state that `load` restores."""
        return {
            "best": self.best,
            "best_figures": self._best_figures,
            "waited": self._epochs_waited,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.best, self._best_figures = state["best"], state["best_figures"]
        self._epochs_waited = state["waited"]
