"""`python -m train tune`: search the recipe's numbers with Optuna, on `block-select` alone.

As it is and under the stress set: by the former alone the weakest augmentation wins (docs/log.md).
The study lies in SQLite, so a search goes on where it was. What wins becomes the default only if it
wins again with seeds that chose nothing: `--confirm`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial, TrialState

from train import judge, sections, split, stress
from train.augment import Strength
from train.data import Dataset
from train.fit import fit
from train.lung_masks import LungMasks
from train.networks import build
from train.options import device
from train.recipes import Phase, Recipe, legs

log = logging.getLogger(__name__)

FOLDER = Path("runs/tune")
SIZE = 64  # pixels a side: four epochs of ResNet50 take about five minutes on two CPU cores
EPOCHS = 4
TRIALS = 12
NEW_SEEDS = (101, 102)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
AS_IT_IS, STRESSED = "as it is", "stressed"  # log-loss on `block-select`, calibrated


@dataclass(frozen=True)
class Task:
    """What is tuned, and on what."""

    network: str
    dataset: Dataset
    masks: LungMasks | None
    epochs: int = EPOCHS
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """The quick recipe, as short as a trial is."""
        phases = (Phase(self.dataset.pixels.shape[-1], self.epochs),)
        return replace(legs("quick", self.network)[0], phases=phases, samples=None)


def tune(task: Task, trials: int, folder: Path = FOLDER) -> optuna.Study:
    """Go on with the search until so many trials are finished; the study."""
    study = _study(task, folder)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # interrupted
        study.tell(trial.number, state=TrialState.FAIL)
    left = trials - len(study.get_trials(states=FINISHED))
    if left > 0:
        log.info("%d trials to go; interrupt them, and the same command goes on", left)
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
    found = {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 4e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.005, 0.3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.12),
        "strength": trial.suggest_float("strength", 0.4, 1.6),
    }

    def told(number: int, loss: float) -> None:
        log.info("trial %d, epoch %d: block-select loss %.4f", trial.number, number, loss)
        trial.report(loss, number)
        if trial.should_prune():
            log.info("trial %d is pruned", trial.number)
            raise optuna.TrialPruned

    losses = _losses(task, changed(task.recipe, found), task.seed, told)
    for name, loss in losses.items():
        trial.set_user_attr(name, loss)
    return sum(losses.values()) / len(losses)


def _losses(
    task: Task, recipe: Recipe, seed: int, told: Callable[[int, float], None] | None = None
) -> dict[str, float]:
    """Train; log-loss on `block-select` as it is, and in the mean over the stress set.

    `told` hears of the former after each epoch, counted from 1.
    """
    torch.manual_seed(seed)
    network = build(task.network, dilated=recipe.dilated, dropout=recipe.dropout)
    for epoch in fit(
        network, task.network, task.dataset, recipe,
        pretrained=False, seed=seed, device=device(), masks=task.masks,
    ):  # fmt: skip
        if told is not None:
            told(epoch.number, epoch.select_loss)
    network, model = judge.calibrate_fitted(
        network, task.network, task.dataset, [split.SELECT], device()
    )
    results = stress.measure(network, model, task.dataset)
    return {AS_IT_IS: results[stress.AS_IT_IS].log_loss, STRESSED: stress.mean(results).log_loss}


def changed(recipe: Recipe, found: Mapping[str, float]) -> Recipe:
    """A recipe with numbers that a trial found; `strength` is a factor on every augmentation."""
    found = dict(found)
    factor = found.pop("strength")
    return replace(recipe, strength=stronger(recipe.strength, factor), **found)  # type: ignore[arg-type]


def stronger(strength: Strength, factor: float) -> Strength:
    """Augmentation stronger by a factor: shares up to 1, ranges wider about what changes nothing.

    A mirror image is as strong as it is, so the share of flips stays.
    """
    nothing = {"crop": 1.0, "contrast": 1.0, "gamma": 1.0, "jpeg_quality": 100.0, "rescale": 1.0}
    values: dict[str, Any] = {}
    for field in fields(strength):
        value = getattr(strength, field.name)
        if field.name == "flip":
            values[field.name] = value
        elif isinstance(value, tuple):
            middle = nothing.get(field.name, 0.0)
            values[field.name] = tuple(middle + factor * (end - middle) for end in value)
        else:
            values[field.name] = (
                min(1.0, factor * value) if "share" in field.name else factor * value
            )
    low, high = values["jpeg_quality"]
    return Strength(**{**values, "jpeg_quality": (max(5.0, low), max(5.0, high))})


def table(study: optuna.Study) -> str:
    """The finished trials, best first."""
    done = study.get_trials(states=FINISHED)
    done.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, trial.value or 0.0))
    names = list(done[0].params) if done else []
    rows = [
        [
            str(trial.number),
            *[_said(trial.user_attrs.get(name)) for name in (AS_IT_IS, STRESSED)],
            *[f"{trial.params[name]:.4g}" for name in names],
        ]
        for trial in done
    ]
    return sections.table(["trial", f"log-loss {AS_IT_IS}", STRESSED, *names], rows)


def _said(loss: float | None) -> str:
    return "pruned" if loss is None else f"{loss:.4f}"


def confirm(task: Task, study: optuna.Study) -> bool:
    """Train the default and the best with two new seeds; whether the best wins with both, on the
    images as they are and on those of the stress set.

    Finished trainings are kept in the study, so an interrupted comparison goes on.
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
        "wins again with both seeds" if all(wins) else "does not win with both seeds",
        study.best_params if all(wins) else "the default stays",
    )
    return all(wins)
