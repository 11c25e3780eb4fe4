"""Fine-tuning: progressive unfreezing, schedule, early stopping; one `Epoch` after another."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from train import augment, calibrate, checkpoint, split
from train.background import BackgroundSwaps, swap
from train.convolution import Matrices
from train.data import Dataset
from train.losses import lung_penalty
from train.lung_masks import LungMasks
from train.networks import NETWORKS, Classifier, predict, resize
from train.recipes import Recipe
from train.replay import WithFeatures, graphed

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between states written within an epoch


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave, on the averaged weights. Losses in nats, that of `block-select` after
    calibration on itself; `left` in seconds."""

    number: int  # from 1
    epochs: int
    size: int
    unfrozen: int  # stages that learn, from the head
    learning_rate: float
    train_loss: float
    select_loss: float
    select_auc: float
    random_auc: float
    seconds: float
    images_a_second: float
    left: float
    best: bool

    def line(self) -> str:
        """One line to print."""
        return (
            f"epoch {self.number}/{self.epochs} at {self.size} px: "
            f"loss {self.train_loss:.3f}, block-select loss {self.select_loss:.3f} "
            f"AUC {self.select_auc:.4f}{' (best)' if self.best else ''}, "
            f"random AUC {self.random_auc:.4f}; {self.images_a_second:.0f} images/s, "
            f"{self.left / 60:.0f} min left"
        )


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
    """Fit a network in place, yielding each epoch; afterwards it holds the best weights.

    `state` is a file from which an interrupted run goes on, at the step where it was last
    written: after each epoch and every two minutes. On a CPU the resumed run ends with the
    weights of an uninterrupted one. From scratch there is nothing to preserve: every stage learns
    from the first epoch. Validation is the part `block-select`. With `masks` the recipe's share of
    images has its outside changed, and evidence outside the lungs is penalised.
    """
    run = _Run(network, name, dataset, recipe, pretrained, seed, device or torch.device("cpu"))
    if masks is not None:
        run.use(masks)
    if state is not None and state.is_file():
        run.load(state)
        log.info("%s: going on at step %d of %d", name, run.step, run.steps)
        yield from run.history
    while not run.finished():
        epoch = run.epoch(state)
        yield epoch
    run.restore()


class _Run:
    """The state of a fit between two steps."""

    def __init__(
        self,
        network: Classifier,
        name: str,
        dataset: Dataset,
        recipe: Recipe,
        pretrained: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.name, self.recipe, self.seed, self.device = name, recipe, seed, device
        self.pretrained = pretrained
        self.ranks = distributed.get_world_size() if distributed.is_initialized() else 1
        self.rank = distributed.get_rank() if self.ranks > 1 else 0
        self.dataset = dataset
        self.rows = {part: dataset.rows(part) for part in (split.FIT, split.SELECT, split.RANDOM)}
        self.labels = torch.from_numpy(dataset.labels)
        # On a GPU the whole data set lies there; on a CPU it stays in the memory-mapped file.
        pixels = torch.from_numpy(np.ascontiguousarray(dataset.pixels))
        self.pixels = pixels.to(device)
        self.optimizer = torch.optim.AdamW(
            list(_groups(network, name, recipe, pretrained)), fused=True
        )
        self.half = half(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half is torch.float16)
        self.samples = min(recipe.samples or len(self.rows[split.FIT]), len(self.rows[split.FIT]))
        self.steps_an_epoch = max(1, self.samples // recipe.batch)
        self.steps = self.steps_an_epoch * recipe.epochs
        decay = 1 - 1 / max(1.0, recipe.average * self.steps)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.step = 0
        self.losses: list[Tensor] = []  # on the device: to read one is to wait for it
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_figures = (-math.inf, -math.inf)  # loss with its sign turned, AUC
        self.waited = 0

        self.masks: Tensor | None = None
        self.outside: BackgroundSwaps | None = None
        self.graph: WithFeatures | None = None
        self.recorded: tuple[torch.Size, int] | None = None  # pixels' shape, stages that learned

    def use(self, masks: LungMasks) -> None:
        """Train with masks, of which only those of the part `fit` are ever looked at."""
        self.masks = torch.from_numpy(masks.pixels).to(self.device)
        self.outside = BackgroundSwaps(masks, self.dataset.labels, self.rows[split.FIT])

    # --- between epochs

    def finished(self) -> bool:
        return self.step >= self.steps or self.waited >= self.recipe.patience

    def epoch(self, state: Path | None) -> Epoch:
        """Run the rest of the current epoch and judge it."""
        number = self.step // self.steps_an_epoch
        phase = self.recipe.phase_of(number)
        unfrozen = self._unfreeze(number)
        model: nn.Module = self.network
        if self.ranks > 1:
            model = DistributedDataParallel(self.network)
        order = self._order(number)
        started, first = time.monotonic(), self.step
        saved = started
        bar = tqdm(
            total=self.samples,
            initial=(self.step % self.steps_an_epoch) * self.recipe.batch,
            desc=f"{self.name} epoch {number + 1}/{self.recipe.epochs} at {phase.size} px",
            unit=" images",
            disable=None if self.rank == 0 else True,
            leave=False,
        )
        with bar:
            while self.step < (number + 1) * self.steps_an_epoch:
                place = self.step % self.steps_an_epoch
                batch = order[place * self.recipe.batch :][: self.recipe.batch]
                self.losses.append(self._step(model, batch, phase.size, unfrozen))
                self.step += 1
                bar.update(self.recipe.batch)
                if state is not None and time.monotonic() - saved > SAVE_EVERY:
                    self.save(state)
                    saved = time.monotonic()
        seconds = time.monotonic() - started
        record = self._judge(number, phase.size, unfrozen, seconds, self.step - first)
        self.history.append(record)
        self.losses = []
        if state is not None:
            self.save(state)
        return record

    def _judge(self, number: int, size: int, unfrozen: int, seconds: float, steps: int) -> Epoch:
        select_loss, select_auc = self._validate(split.SELECT, size)
        _, random_auc = self._validate(split.RANDOM, size)
        final = size == self.recipe.size
        # Not the AUC first: near 1 it moves by a few pairs of images.
        better = final and (-select_loss, select_auc) > self.best_figures
        if better:
            self.best_figures, self.waited = (-select_loss, select_auc), 0
            self.best = {
                key: value.detach().cpu().clone()
                for key, value in self.average.module.state_dict().items()
            }
        elif final:
            self.waited += 1
        # The cost of a step grows with the number of pixels.
        cost = seconds / max(1, steps) / size**2
        ahead = sum(
            self.recipe.phase_of(later).size ** 2 for later in range(number + 1, self.recipe.epochs)
        )
        return Epoch(
            number=number + 1,
            epochs=self.recipe.epochs,
            size=size,
            unfrozen=unfrozen,
            learning_rate=self.recipe_rate() * self._schedule(self.step - 1),
            train_loss=float(np.mean([float(loss) for loss in self.losses])),
            select_loss=select_loss,
            select_auc=select_auc,
            random_auc=random_auc,
            seconds=seconds,
            images_a_second=steps * self.recipe.batch / seconds,
            left=0.0 if self.finished() else cost * ahead * self.steps_an_epoch,
            best=better,
        )

    def _validate(self, part: str, size: int) -> tuple[float, float]:
        """Log-loss, calibrated, and AUC of the averaged weights on a part; on every rank the same.

        Calibrated on the part itself, by temperature and offset, since a finished network is too:
        what is left is how well the classes are told apart.
        """
        rows = self.rows[part]
        labels = self.labels[rows].numpy()
        averaged = self.average.module
        assert isinstance(averaged, Classifier)
        logits = predict(averaged, self.pixels[rows], size).double().numpy()
        scores = calibrate.fit(logits, labels).scores(logits)
        result = [
            log_loss(labels, scores, labels=[0, 1]),
            roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
        ]
        if self.ranks > 1:  # BatchNorm's statistics differ by rank, the decision must not
            distributed.broadcast_object_list(result, src=0)
        return float(result[0]), float(result[1])

    def restore(self) -> None:
        """The best weights into the network, in evaluation mode."""
        self.network.load_state_dict(self.best or self.average.module.state_dict())
        self.network.eval().requires_grad_(True)

    # --- one step

    def _step(self, model: nn.Module, batch: Tensor, size: int, unfrozen: int) -> Tensor:
        """One update from the rows of a batch, of which each rank takes its slice."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # dropout
        changes = augment.draw(len(batch), self.recipe.strength, generator)
        share = len(batch) // self.ranks
        mine = slice(self.rank * share, (self.rank + 1) * share)
        pixels = resize(self.pixels[batch[mine].to(self.device)], size)
        pixels, lungs = self._change_outside(pixels, batch, mine, generator)
        changes = changes.slice(mine).to(self.device)
        pixels = augment.apply(pixels, changes)
        labels = self.labels[batch[mine]].to(self.device)
        kept = 1.0
        if self.recipe.mixup:  # Zhang et al. 2018, arXiv:1710.09412; the batch is in random order
            kept = float(torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample())
            pixels = kept * pixels + (1 - kept) * pixels.roll(1, 0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._schedule(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            with convolution(self.device):
                logits, features = self._answers(model, pixels, unfrozen)(pixels)
            loss = self._loss(logits, labels)
            if kept < 1:
                loss = kept * loss + (1 - kept) * self._loss(logits, labels.roll(1))
        if lungs is not None and self.recipe.lung_penalty:
            known = lungs.amax((1, 2)) > 0
            moved = augment.move(lungs, changes)
            if kept < 1:  # the lungs of both
                moved, known = torch.maximum(moved, moved.roll(1, 0)), known & known.roll(1)
            penalty = lung_penalty(features, self.network.head.weight, moved, known)
            loss = loss + self.recipe.lung_penalty * penalty
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.network)
        return loss.detach()

    def _answers(self, model: nn.Module, pixels: Tensor, unfrozen: int) -> WithFeatures:
        """The network as it answers such pixels: on one GPU as a graph of this shape."""
        if self.device.type != "cuda" or self.ranks > 1:
            return WithFeatures(self.network, model)
        if self.graph is None or self.recorded != (pixels.shape, unfrozen):
            self.graph = None  # its memory is free again
            self.graph = graphed(self.network, pixels, self.half)
            self.recorded = (pixels.shape, unfrozen)
        return self.graph

    def _change_outside(
        self, pixels: Tensor, batch: Tensor, mine: slice, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Pixels (N, S, S) of my slice of a batch, some changed, and their masks, 0..1."""
        if self.masks is None or self.outside is None:
            return pixels, None
        size = pixels.shape[-1]
        lungs = resize(self.masks[batch[mine].to(self.device)], size) / 255
        if not self.recipe.outside:
            return pixels, lungs
        swaps = self.outside.draw(batch, self.recipe.outside, generator).slice(mine)
        donors = swaps.donor.to(self.device)
        their_lungs = resize(self.masks[donors], size) / 255
        theirs = resize(self.pixels[donors], size)
        return swap(pixels, lungs, theirs, their_lungs, swaps), lungs

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(
            logits, labels, reduction="none", label_smoothing=self.recipe.label_smoothing
        )
        # Not divided by the sum of the weights, which would differ from rank to rank.
        return (losses * self._class_weights()[labels]).mean()

    def _class_weights(self) -> Tensor:
        """Weights (2,) that make both classes count the same; 1 where they are sampled so."""
        if self.recipe.samples is not None:
            return torch.ones(2, device=self.device)
        counts = torch.bincount(self.labels[self.rows[split.FIT]], minlength=2)
        return (counts.sum() / (2 * counts)).to(self.device, torch.float32)

    def _order(self, number: int) -> Tensor:
        """The rows of an epoch, shuffled; as many of each class where it is a sample."""
        random = np.random.default_rng([self.seed, number])
        rows = self.rows[split.FIT]
        if self.recipe.samples is None:
            return torch.from_numpy(random.permutation(rows))
        labels = self.labels[rows].numpy()
        half = self.samples // 2
        chosen = [
            random.choice(rows[labels == label], half, replace=(labels == label).sum() < half)
            for label in (0, 1)
        ]
        return torch.from_numpy(random.permutation(np.concatenate(chosen)))

    def recipe_rate(self) -> float:
        """The head's peak learning rate."""
        recipe = self.recipe
        return recipe.pretrained_learning_rate if self.pretrained else recipe.learning_rate

    def _schedule(self, step: int) -> float:
        """The share of the peak rate: a linear warm-up, then half a cosine to nothing."""
        warm_up = max(1, round(self.recipe.warm_up * self.steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up)))

    def _unfreeze(self, number: int) -> int:
        """Let the stages of this epoch learn, from the head down; how many they are."""
        architecture = NETWORKS[self.name]
        stages = len(architecture.stages)
        unfrozen = stages
        if self.pretrained:
            span = max(1.0, self.recipe.unfreeze_until * self.recipe.epochs)
            unfrozen = min(stages, 1 + math.floor(number * (stages - 1) / span))
        self.network.train()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(architecture.stage_of(name) < unfrozen)
        for module in self.network.modules():
            # The statistics of a frozen stage stay as still as its weights.
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return unfrozen

    # --- to a file and back

    def save(self, path: Path) -> None:
        """Write the state to the side and rename it, from the first rank."""
        if self.rank:
            return
        checkpoint.write_state(
            path,
            {
                "step": self.step,
                "losses": [float(loss) for loss in self.losses],
                "history": [asdict(epoch) for epoch in self.history],
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best": self.best,
                "best_figures": self.best_figures,
                "waited": self.waited,
            },
        )

    def load(self, path: Path) -> None:
        """Go on from a state."""
        state: dict[str, Any] = checkpoint.read_state(path)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best, self.best_figures = state["best"], state["best_figures"]
        self.waited = state["waited"]


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


def _groups(
    network: Classifier, name: str, recipe: Recipe, pretrained: bool
) -> Iterator[dict[str, Any]]:
    """The optimizer's groups, by stage; biases and BatchNorm are not decayed."""
    architecture = NETWORKS[name]
    for stage in range(len(architecture.stages)):
        peak = recipe.learning_rate
        if pretrained:
            peak = recipe.pretrained_learning_rate * recipe.stage_factor**stage
        for decayed in (True, False):
            parameters = [
                parameter
                for key, parameter in network.named_parameters()
                if architecture.stage_of(key) == stage and (parameter.ndim > 1) == decayed
            ]
            decay = recipe.weight_decay if decayed else 0.0
            yield {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
