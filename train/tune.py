"""Hyperparameter search with Optuna, `python -m train tune`, on `block-select`.

A trial's objective is the mean of two log-losses: on unchanged images and on the robustness set.
With the first alone, the weakest augmentation wins (docs/log.md). The study is stored in SQLite, so
an interrupted search resumes. The best trial becomes the default only if it wins again with seeds
that were not used in the search: `--confirm`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial, TrialState

from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.evaluation import calibrated_model, robustness
from train.fitting.augment import Strength
from train.fitting.loop import fit
from train.fitting.options import device
from train.fitting.recipes import Phase, Recipe, legs
from train.model.networks import build
from train.report import report_sections

log = logging.getLogger(__name__)

FOLDER = Path("runs/tune")
SIZE = 64  # pixels a side: four epochs of ResNet50 take about five minutes on two CPU cores
EPOCHS = 4
NEW_SEEDS = (101, 102)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Log-losses on `block-select`, after calibration; the names are keys of stored studies.
UNCHANGED, CORRUPTED = "as it is", "stressed"


@dataclass(frozen=True)
class Task:
    """The network to tune, and its training data."""

    network: str
    dataset: Dataset
    masks: LungMasks | None
    epochs: int = EPOCHS
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """The quick recipe, shortened to a trial's epochs."""
        phases = (Phase(self.dataset.pixels.shape[-1], self.epochs),)
        return replace(legs("quick", self.network)[0], phases=phases, samples=None)


def tune(task: Task, trials: int, folder: Path = FOLDER) -> optuna.Study:
    """Continue the search until `trials` are finished in all; returns the study."""
    study = _study(task, folder)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # interrupted
        study.tell(trial.number, state=TrialState.FAIL)
    left = trials - len(study.get_trials(states=FINISHED))
    if left > 0:
        log.info("%d trials to go; after an interruption the same command continues", left)
        study.optimize(lambda trial: _objective(task, trial), n_trials=left)
    log.info("%s", table(study))
    return study


def _study(task: Task, folder: Path) -> optuna.Study:
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    masks = "lungs" if task.masks is not None else "no-lungs"
    name = (
        f"{task.network}-{task.dataset.name}-{masks}-{task.epochs}-epochs-seed{task.seed}-stressed"
    )
    return optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{folder / 'study.db'}",
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )


def _objective(task: Task, trial: Trial) -> float:
    parameters = {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 4e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.005, 0.3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.12),
        "strength": trial.suggest_float("strength", 0.4, 1.6),
    }

    def report(number: int, loss: float) -> None:
        log.info("trial %d, epoch %d: block-select loss %.4f", trial.number, number, loss)
        trial.report(loss, number)
        if trial.should_prune():
            log.info("trial %d is pruned", trial.number)
            raise optuna.TrialPruned

    losses = _losses(task, changed(task.recipe, parameters), task.seed, report)
    for name, loss in losses.items():
        trial.set_user_attr(name, loss)
    return sum(losses.values()) / len(losses)


def _losses(
    task: Task, recipe: Recipe, seed: int, report: Callable[[int, float], None] | None = None
) -> dict[str, float]:
    """Train a network; its log-losses on `block-select`, unchanged and mean over corruptions.

    `report` is called after each epoch with its number, from 1, and the loss on `block-select`.
    """
    torch.manual_seed(seed)
    network = build(task.network, dilated=recipe.dilated, dropout=recipe.dropout)
    for epoch in fit(
        network, task.network, task.dataset, recipe,
        pretrained=False, seed=seed, device=device(), masks=task.masks,
    ):  # fmt: skip
        if report is not None:
            report(epoch.number, epoch.select_loss)
    network, model = calibrated_model.calibrate_fitted(
        network, task.network, task.dataset, [splits.SELECT], device()
    )
    results = robustness.measure(network, model, task.dataset)
    return {
        UNCHANGED: results[robustness.UNCHANGED].log_loss,
        CORRUPTED: robustness.mean(results).log_loss,
    }


def changed(recipe: Recipe, parameters: Mapping[str, float]) -> Recipe:
    """A copy of the recipe with a trial's parameters for its fields of these names.

    `strength` is not a field: it is the factor of `stronger`.
    """
    numbers = dict(parameters)
    factor = numbers.pop("strength")
    return replace(recipe, strength=stronger(recipe.strength, factor), **numbers)  # type: ignore[arg-type]


def stronger(strength: Strength, factor: float) -> Strength:
    """Augmentation stronger by a factor: larger shares, up to 1, and wider ranges.

    Ranges are widened about the value that leaves an image unchanged. The share of flips stays,
    because a flip has no strength.
    """
    neutral = {"crop": 1.0, "contrast": 1.0, "gamma": 1.0, "jpeg_quality": 100.0, "rescale": 1.0}
    scaled: dict[str, Any] = {}
    for field in fields(strength):
        value = getattr(strength, field.name)
        if field.name == "flip":
            scaled[field.name] = value
        elif isinstance(value, tuple):
            middle = neutral.get(field.name, 0.0)
            scaled[field.name] = tuple(middle + factor * (end - middle) for end in value)
        else:
            product = factor * value
            scaled[field.name] = min(1.0, product) if "share" in field.name else product
    low, high = scaled["jpeg_quality"]
    return Strength(**{**scaled, "jpeg_quality": (max(5.0, low), max(5.0, high))})


def table(study: optuna.Study) -> str:
    """The finished trials as a Markdown table, best first."""
    trials = study.get_trials(states=FINISHED)
    trials.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, trial.value or 0.0))
    names = list(trials[0].params) if trials else []
    rows = [
        [
            str(trial.number),
            *[_loss_cell(trial.user_attrs.get(name)) for name in (UNCHANGED, CORRUPTED)],
            *[f"{trial.params[name]:.4g}" for name in names],
        ]
        for trial in trials
    ]
    return report_sections.table(["trial", f"log-loss {UNCHANGED}", CORRUPTED, *names], rows)


def _loss_cell(loss: float | None) -> str:
    return "pruned" if loss is None else f"{loss:.4f}"


def confirm(task: Task, study: optuna.Study) -> bool:
    """Train the default recipe and the best trial's with two new seeds; whether the latter wins.

    It wins if both its log-losses are lower with both seeds. Finished trainings are stored in the
    study, so an interrupted comparison resumes.
    """
    wins = []
    for seed in NEW_SEEDS:
        losses = {}
        for name, recipe in (
            ("default", task.recipe),
            (f"trial {study.best_trial.number}", changed(task.recipe, study.best_params)),
        ):
            key = f"{name}, seed {seed}"
            if key not in study.user_attrs:
                study.set_user_attr(key, _losses(task, recipe, seed))
            losses[name] = study.user_attrs[key]
            log.info("%s: log-loss %s", key, losses[name])
        default, best = losses.values()
        wins.append(all(best[name] < default[name] for name in default))
    log.info(
        "the best trial %s: %s",
        "wins with both seeds" if all(wins) else "does not win with both seeds",
        study.best_params if all(wins) else "keep the default",
    )
    return all(wins)
