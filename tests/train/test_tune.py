"""The hyperparameter search, on the small network."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.small import RECIPE
from train import tune
from train.data import dataset as datasets
from train.fitting import recipes
from train.fitting.augment import Strength
from train.tune import Task


@pytest.fixture
def task(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> Task:
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (RECIPE,))
    dataset = datasets.load(images, 24, cache=tmp_path / "cache")
    return Task("small", dataset, None, epochs=2)


def test_a_search_resumes_after_an_interruption(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = tune._losses, 0

    def losses(*args: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(tune, "_losses", losses)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(task, 4, tmp_path)
    study = tune.tune(task, 4, tmp_path)
    states = [trial.state for trial in study.get_trials()]
    assert sum(state in tune.FINISHED for state in states) == 4
    assert states[2] == TrialState.FAIL
    assert calls == 5
    assert calls == len(states)
    tune.tune(task, 4, tmp_path)  # nothing is left to do
    assert calls == 5
    best = study.best_trial
    unchanged, corrupted = (best.user_attrs[name] for name in (tune.UNCHANGED, tune.CORRUPTED))
    assert best.value == pytest.approx((unchanged + corrupted) / 2)
    assert unchanged != corrupted
    assert f"| {best.number} | {unchanged:.4f} | {corrupted:.4f} |" in tune.table(study)
    assert tune.table(study).splitlines()[2].startswith(f"| {best.number} |")


def test_the_worst_trial_is_pruned(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = iter([[0.5, 0.4]] * 4 + [[0.5, 0.9, 0.1]])

    def losses(*args: Any) -> dict[str, float]:
        report = args[-1]
        for number, loss in enumerate(next(epochs), 1):
            report(number, loss)
        return {tune.UNCHANGED: loss, tune.CORRUPTED: loss}

    monkeypatch.setattr(tune, "_losses", losses)
    study = tune.tune(task, 5, tmp_path)
    assert [trial.state for trial in study.get_trials()] == [
        *[TrialState.COMPLETE] * 4, TrialState.PRUNED,
    ]  # fmt: skip
    assert "| pruned |" in tune.table(study)


@pytest.mark.parametrize(
    ("best", "corrupted", "wins"),
    [((0.3, 0.3), 0.4, True), ((0.3, 0.6), 0.4, False), ((0.3, 0.3), 0.7, False)],
)
def test_the_best_trial_must_win_with_both_new_seeds(
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    best: tuple[float, float],
    corrupted: float,
    wins: bool,
) -> None:
    study = tune.tune(task, 1, tmp_path)
    seeds = []

    def losses(_task: Task, recipe: recipes.Recipe, seed: int) -> dict[str, float]:
        seeds.append(seed)
        if recipe == task.recipe:
            return {tune.UNCHANGED: 0.5, tune.CORRUPTED: 0.6}
        return {tune.UNCHANGED: best[tune.NEW_SEEDS.index(seed)], tune.CORRUPTED: corrupted}

    monkeypatch.setattr(tune, "_losses", losses)
    assert tune.confirm(task, study) is wins
    assert seeds == [101, 101, 102, 102]
    assert tune.confirm(task, study) is wins  # from the losses stored in the study
    assert len(seeds) == 4


def test_stronger_augmentation() -> None:
    default = Strength()
    assert tune.stronger(default, 1.0) == default
    none = tune.stronger(default, 0.0)
    assert none == Strength(
        rotation=0, crop=(1, 1), stretch=0, brightness=0, contrast=(1, 1), gamma=(1, 1),
        jpeg_share=0, jpeg_quality=(100, 100), rescale_share=0, rescale=(1, 1), blur_share=0,
        blur=(0, 0), border_share=0, border=0, cutout_share=0, cutout=(0, 0),
    )  # fmt: skip
    more = tune.stronger(default, 1.5)
    assert more.rotation == 18
    assert more.crop == pytest.approx((0.475, 1.075))
    assert more.jpeg_share == 0.75
    assert tune.stronger(default, 3.0).jpeg_share == 1.0
    assert tune.stronger(default, 3.0).jpeg_quality[0] == 5.0


def test_a_trials_parameters_become_a_recipe(task: Task, tmp_path: Path) -> None:
    study = tune.tune(task, 1, tmp_path)
    recipe = tune.changed(task.recipe, study.best_params)
    assert recipe.learning_rate == study.best_params["learning_rate"]
    assert recipe.strength.rotation == pytest.approx(12 * study.best_params["strength"])
