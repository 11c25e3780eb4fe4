"""The training loop: progressive unfreezing, schedule, early stopping; it yields epochs."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from tqdm import tqdm

from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting.batches import Batch, Batches, epoch_rows
from train.fitting.epoch import Epoch
from train.fitting.learner import Learner
from train.fitting.losses import class_weights, classification_loss, lung_penalty
from train.fitting.recipes import Recipe
from train.fitting.schedule import learning_rate_share, peak_learning_rate, unfrozen_stages
from train.fitting.validation import EarlyStopping, validate
from train.model import checkpoint
from train.model.networks import Classifier

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between states written within an epoch


def fit(
    network: Classifier,
    name: str,
    dataset: Dataset,
    recipe: Recipe,
    *,
    pretrained: bool,
    seed: int,
    state: Path | None = None,
    device: torch.device | None = None,
    masks: LungMasks | None = None,
) -> Iterator[Epoch]:
    """Train a network in place, yielding each epoch; afterwards it has the best weights.

    `state` is a file, written after each epoch and every two minutes, from which an interrupted
    run resumes. On a CPU the resumed run ends with the weights of an uninterrupted one. The best
    epoch is chosen on the part `block-select`. With `masks` the background of the recipe's share
    of images is changed, and evidence outside the lungs is penalised.

    Raises:
        CheckpointError: the state can't be written.
    """
    run = _Fit(
        network, name, dataset, recipe,
        pretrained=pretrained, seed=seed, device=device or torch.device("cpu"), masks=masks,
    )  # fmt: skip
    if state is not None and state.is_file():
        run.load(state)
        log.info("%s: resuming at step %d of %d", name, run.step, run.steps)
        yield from run.history
    while not run.finished():
        yield run.epoch(state)
    run.restore()


class _Fit:
    """The state of training between two steps."""

    def __init__(
        self,
        network: Classifier,
        name: str,
        dataset: Dataset,
        recipe: Recipe,
        *,
        pretrained: bool,
        seed: int,
        device: torch.device,
        masks: LungMasks | None,
    ) -> None:
        self.name, self.recipe, self.seed, self.pretrained = name, recipe, seed, pretrained
        self.ranks = distributed.get_world_size() if distributed.is_initialized() else 1
        self.rank = distributed.get_rank() if self.ranks > 1 else 0
        self.rows = {
            part: dataset.rows(part) for part in (splits.FIT, splits.SELECT, splits.RANDOM)
        }
        self.labels = dataset.labels
        training_rows = self.rows[splits.FIT]
        self.samples = min(recipe.samples or len(training_rows), len(training_rows))
        self.steps_an_epoch = max(1, self.samples // recipe.batch)
        self.steps = self.steps_an_epoch * recipe.epochs
        self.learner = Learner(
            network, name, recipe,
            pretrained=pretrained, steps=self.steps, device=device, ranks=self.ranks,
        )  # fmt: skip
        self.batches = Batches(dataset, recipe, device, masks, rank=self.rank, ranks=self.ranks)
        self.class_weights = torch.ones(2, device=device)  # samples are balanced already
        if recipe.samples is None:
            self.class_weights = class_weights(torch.from_numpy(self.labels[training_rows])).to(
                device
            )
        self.stopping = EarlyStopping(recipe.patience)
        self.step = 0
        self.losses: list[Tensor] = []  # on the device: reading one waits for the GPU
        self.history: list[Epoch] = []

    # --- between epochs

    def finished(self) -> bool:
        return self.step >= self.steps or self.stopping.exhausted

    def epoch(self, state: Path | None) -> Epoch:
        """Run the rest of the current epoch and validate."""
        number = self.step // self.steps_an_epoch
        size = self.recipe.phase_of(number).size
        self.learner.unfreeze(
            unfrozen_stages(number, self.learner.architecture, self.recipe, self.pretrained)
        )
        rows = self.rows[splits.FIT]
        samples = None if self.recipe.samples is None else self.samples
        order = epoch_rows(rows, self.labels[rows], samples, self.seed, number)
        started, first_step = time.monotonic(), self.step
        saved = started
        bar = tqdm(
            total=self.samples,
            initial=(self.step % self.steps_an_epoch) * self.recipe.batch,
            desc=f"{self.name} epoch {number + 1}/{self.recipe.epochs} at {size} px",
            unit=" images",
            disable=None if self.rank == 0 else True,
            leave=False,
        )
        with bar:
            while self.step < (number + 1) * self.steps_an_epoch:
                start = self.step % self.steps_an_epoch * self.recipe.batch
                self.losses.append(self._step(order[start : start + self.recipe.batch], size))
                self.step += 1
                bar.update(self.recipe.batch)
                if state is not None and time.monotonic() - saved > SAVE_EVERY:
                    self.save(state)
                    saved = time.monotonic()
        record = self._record(number, size, time.monotonic() - started, self.step - first_step)
        self.history.append(record)
        self.losses = []
        if state is not None:
            self.save(state)
        return record

    def _record(self, number: int, size: int, seconds: float, steps: int) -> Epoch:
        """Figures of epoch `number`, counted from 0, whose last `steps` took `seconds`."""
        select_loss, select_auc = self._validate(splits.SELECT, size)
        _, random_auc = self._validate(splits.RANDOM, size)
        best = size == self.recipe.size and self.stopping.update(
            self.learner.averaged, select_loss, select_auc
        )
        # The time of a step is proportional to the number of pixels.
        seconds_a_pixel = seconds / max(1, steps) / size**2
        remaining = sum(
            self.recipe.phase_of(later).size ** 2 for later in range(number + 1, self.recipe.epochs)
        )
        return Epoch(
            number=number + 1,
            epochs=self.recipe.epochs,
            size=size,
            unfrozen=self.learner.unfrozen,
            learning_rate=peak_learning_rate(self.recipe, self.pretrained)
            * learning_rate_share(self.step - 1, self.steps, self.recipe.warm_up),
            train_loss=float(np.mean([float(loss) for loss in self.losses])),
            select_loss=select_loss,
            select_auc=select_auc,
            random_auc=random_auc,
            seconds=seconds,
            images_a_second=steps * self.recipe.batch / seconds,
            left=0.0 if self.finished() else seconds_a_pixel * remaining * self.steps_an_epoch,
            best=best,
        )

    def _validate(self, part: str, size: int) -> tuple[float, float]:
        """Calibrated log-loss and AUC of the averaged weights on a part."""
        rows = self.rows[part]
        return validate(self.learner.averaged, self.batches.pixels[rows], self.labels[rows], size)

    def restore(self) -> None:
        """Load the best weights into the network and set evaluation mode."""
        network = self.learner.network
        network.load_state_dict(self.stopping.best or self.learner.averaged.state_dict())
        network.eval().requires_grad_(True)

    # --- one step

    def _step(self, rows: Tensor, size: int) -> Tensor:
        """Train on a batch of rows (N,); returns the loss, a scalar on the device."""
        seed = self.seed * 1_000_003 + self.step
        torch.manual_seed(seed)  # mixup and dropout
        batch = self.batches.make(rows, size, torch.Generator().manual_seed(seed))
        logits, features = self.learner.forward(batch.pixels)
        loss = self._loss(batch, logits, features)
        self.learner.update(loss, learning_rate_share(self.step, self.steps, self.recipe.warm_up))
        return loss.detach()

    def _loss(self, batch: Batch, logits: Tensor, features: Tensor) -> Tensor:
        """The loss, a scalar, of logits (N, 2) and features (N, C, h, w) on a batch."""
        loss = classification_loss(
            logits, batch.labels, self.class_weights,
            smoothing=self.recipe.label_smoothing, mixup_weight=batch.mixup_weight,
        )  # fmt: skip
        if batch.masks is None or not self.recipe.lung_penalty:
            return loss
        weight = self.learner.network.head.weight
        penalty = lung_penalty(features, weight, batch.masks.pixels, batch.masks.present)
        return loss + self.recipe.lung_penalty * penalty

    # --- saving and resuming

    def save(self, path: Path) -> None:
        """Write the state atomically, in the first process only."""
        if self.rank:
            return
        checkpoint.write_state(
            path,
            {
                "step": self.step,
                "losses": [float(loss) for loss in self.losses],
                "history": [asdict(epoch) for epoch in self.history],
                **self.learner.state(),
                **self.stopping.state(),
            },
        )

    def load(self, path: Path) -> None:
        """Restore the state in a file."""
        state: dict[str, Any] = checkpoint.read_state(path)
        self.learner.load(state)
        self.stopping.load(state)
        self.step = state["step"]
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
