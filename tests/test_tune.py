"""The search for better numbers, on the small network."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.small import RECIPE
from train import data, recipes, tune
from train.augment import Strength
from train.tune import Task


@pytest.fixture
def task(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> Task:
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (RECIPE,))
    dataset = data.load(images, 24, cache=tmp_path / "cache")
    return Task("small", dataset, None, epochs=2)


def test_a_search_goes_on_after_an_interruption(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = tune._losses, 0

    def losses(*words: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*words)

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
    as_it_is, stressed = (best.user_attrs[name] for name in (tune.AS_IT_IS, tune.STRESSED))
    assert best.value == pytest.approx((as_it_is + stressed) / 2)
    assert as_it_is != stressed
    assert f"| {best.number} | {as_it_is:.4f} | {stressed:.4f} |" in tune.table(study)
    assert tune.table(study).splitlines()[2].startswith(f"| {best.number} |")


def test_a_trial_worse_than_the_others_is_pruned(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = iter([[0.5, 0.4]] * 4 + [[0.5, 0.9, 0.1]])

    def losses(*words: Any) -> dict[str, float]:
        for number, loss in enumerate(next(epochs), 1):
            words[-1](number, loss)
        return {tune.AS_IT_IS: loss, tune.STRESSED: loss}

    monkeypatch.setattr(tune, "_losses", losses)
    study = tune.tune(task, 5, tmp_path)
    assert [trial.state for trial in study.get_trials()] == [
        *[TrialState.COMPLETE] * 4, TrialState.PRUNED,
    ]  # fmt: skip
    assert "| pruned |" in tune.table(study)


@pytest.mark.parametrize(
    ("best", "stressed", "wins"),
    [((0.3, 0.3), 0.4, True), ((0.3, 0.6), 0.4, False), ((0.3, 0.3), 0.7, False)],
)
def test_the_best_must_win_again_with_both_seeds(
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    best: tuple[float, float],
    stressed: float,
    wins: bool,
) -> None:
    study = tune.tune(task, 1, tmp_path)
    asked = []

    def losses(_task: Task, recipe: recipes.Recipe, seed: int) -> dict[str, float]:
        asked.append(seed)
        if recipe == task.recipe:
            return {tune.AS_IT_IS: 0.5, tune.STRESSED: 0.6}
        return {tune.AS_IT_IS: best[tune.NEW_SEEDS.index(seed)], tune.STRESSED: stressed}

    monkeypatch.setattr(tune, "_losses", losses)
    assert tune.confirm(task, study) is wins
    assert asked == [101, 101, 102, 102]
    assert tune.confirm(task, study) is wins  # from what the study keeps
    assert len(asked) == 4


def test_stronger_augmentation() -> None:
    as_it_is = Strength()
    assert tune.stronger(as_it_is, 1.0) == as_it_is
    none = tune.stronger(as_it_is, 0.0)
    assert none == Strength(
        rotation=0, crop=(1, 1), stretch=0, brightness=0, contrast=(1, 1), gamma=(1, 1),
        jpeg_share=0, jpeg_quality=(100, 100), rescale_share=0, rescale=(1, 1), blur_share=0,
        blur=(0, 0), border_share=0, border=0, cutout_share=0, cutout=(0, 0),
    )  # fmt: skip
    more = tune.stronger(as_it_is, 1.5)
    assert more.rotation == 18
    assert more.crop == pytest.approx((0.475, 1.075))
    assert more.jpeg_share == 0.75
    assert tune.stronger(as_it_is, 3.0).jpeg_share == 1.0
    assert tune.stronger(as_it_is, 3.0).jpeg_quality[0] == 5.0


def test_what_a_trial_finds_becomes_a_recipe(task: Task, tmp_path: Path) -> None:
    study = tune.tune(task, 1, tmp_path)
    recipe = tune.changed(task.recipe, study.best_params)
    assert recipe.learning_rate == study.best_params["learning_rate"]
    assert recipe.strength.rotation == pytest.approx(12 * study.best_params["strength"])
