import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small import RECIPE
from train.data.dataset import Dataset
from train.fitting.epoch import Epoch
from train.fitting.learner import mixed_precision_type
from train.fitting.loop import fit
from train.fitting.recipes import PRESETS, Phase, Recipe
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.model.networks import Classifier, build

pytestmark = pytest.mark.usefixtures("small_networks")


def run(
    dataset: Dataset,
    recipe: Recipe = RECIPE,
    state: Path | None = None,
    stop: int = 99,
    **options: bool,
) -> tuple[Classifier, list[Epoch]]:
    torch.manual_seed(0)
    network = build("small", dropout=0.2)
    epochs = []
    for epoch in fit(
        network, "small", dataset, recipe,
        pretrained=options.get("pretrained", False), seed=0, state=state,
    ):  # fmt: skip
        epochs.append(epoch)
        if len(epochs) == stop:
            break
    return network, epochs


def same_weights(first: Classifier, second: Classifier) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_fit_learns_and_yields_epochs(dataset: Dataset) -> None:
    _, epochs = run(dataset, replace(RECIPE, phases=(Phase(16, 4), Phase(32, 6))))
    assert [epoch.number for epoch in epochs] == list(range(1, 11))
    assert epochs[-1].select_auc > 0.9
    assert epochs[-1].left == 0
    assert not any(epoch.best for epoch in epochs[:4])  # not at the final size
    assert "block-select" in epochs[0].line()


def test_the_same_seed_gives_the_same_weights(dataset: Dataset) -> None:
    assert same_weights(run(dataset)[0], run(dataset)[0])


def test_mixup_uses_equal_weights_for_images_and_labels(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixing = replace(RECIPE, phases=(Phase(32, 1),), mixup=0.4)
    assert same_weights(run(dataset, mixing)[0], run(dataset, mixing)[0])
    plain = run(dataset, replace(mixing, mixup=0.0))[0]
    assert not same_weights(run(dataset, mixing)[0], plain)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: torch.tensor(1.0))
    assert same_weights(run(dataset, mixing)[0], plain)  # a weight of 1 is no mixup


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resuming_after_an_epoch_gives_the_same_weights(
    dataset: Dataset, tmp_path: Path, stop: int
) -> None:
    whole, epochs = run(dataset)
    state = tmp_path / "state.pt"
    run(dataset, state=state, stop=stop)
    resumed, repeated = run(dataset, state=state)
    assert same_weights(whole, resumed)
    assert [epoch.select_auc for epoch in epochs] == [epoch.select_auc for epoch in repeated]


def test_resuming_within_an_epoch_gives_the_same_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, epochs = run(dataset)
    monkeypatch.setattr("train.fitting.loop.SAVE_EVERY", 0.0)  # a state after each step
    steps = 0

    def write(path: Path, state: dict[str, object]) -> None:
        nonlocal steps
        original(path, state)
        steps += 1
        if steps == 11:
            raise KeyboardInterrupt

    original = checkpoint.write_state
    monkeypatch.setattr(checkpoint, "write_state", write)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, state=tmp_path / "state.pt")
    monkeypatch.setattr(checkpoint, "write_state", original)
    resumed, repeated = run(dataset, state=tmp_path / "state.pt")
    assert same_weights(whole, resumed)
    assert epochs[-1].train_loss == repeated[-1].train_loss


def test_early_stopping_restores_the_best_weights(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.8, 0.85, 0.7])
    weights = []

    def validate(self: object, part: str, _size: int) -> tuple[float, float]:
        if part != "block-select":
            return 1.0, 0.5
        weights.append({k: v.clone() for k, v in self.learner.averaged.state_dict().items()})  # type: ignore[attr-defined]
        return 1.0, next(scores)

    monkeypatch.setattr("train.fitting.loop._Fit._validate", validate)
    recipe = replace(RECIPE, phases=(Phase(32, 9),), patience=3)
    network, epochs = run(dataset, recipe)
    assert [epoch.best for epoch in epochs] == [True, True, False, False, False]
    assert all(torch.equal(weight, weights[1][key]) for key, weight in network.state_dict().items())


def test_unfreezing_from_the_head_down(dataset: Dataset) -> None:
    recipe = replace(RECIPE, phases=(Phase(16, 4),), unfreeze_until=0.5, average=0.0)
    torch.manual_seed(0)
    network = build("small", dropout=0.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    changed = []
    for epoch in fit(network, "small", dataset, recipe, pretrained=True, seed=0):
        after = network.state_dict()
        changed.append({key for key in after if not torch.equal(after[key], before[key])})
        assert epoch.unfrozen == min(3, epoch.number)
    # The statistics of a frozen BatchNorm do not change either.
    assert changed[0] == {"head.weight", "head.bias"}
    assert not any(key.startswith(("trunk.conv0", "trunk.norm0")) for key in changed[1])
    assert any(key.startswith("trunk.norm1.running") for key in changed[1])
    assert any(key.startswith("trunk.norm0.running") for key in changed[2])


def test_from_scratch_every_stage_trains_from_the_first_epoch(dataset: Dataset) -> None:
    _, epochs = run(dataset, stop=1)
    assert epochs[0].unfrozen == 3


def test_a_balanced_sample(dataset: Dataset) -> None:
    _, epochs = run(dataset, replace(RECIPE, samples=32))
    assert epochs[0].images_a_second > 0


def test_a_folder_that_cannot_be_written_is_named(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"state\.pt can't be written .* free some space"):
        run(dataset, state=tmp_path / "file" / "state.pt", stop=1)


def test_a_full_disk_is_named_and_leaves_the_last_state(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.pt"
    run(dataset, state=state, stop=1)
    before = state.read_bytes()
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "state.pt.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"state\.pt can't be written"):
        run(dataset, state=state, stop=2)
    assert state.read_bytes() == before


def test_killed_process_resumes_to_the_same_weights(images: Path, tmp_path: Path) -> None:
    """SIGKILL of a real process, then the same command again."""
    script = [sys.executable, "-m", "tests.train.fitting.fit_script", str(images)]
    folders = [tmp_path / "whole", tmp_path / "killed"]
    root = Path(__file__).parents[3]
    subprocess.run([*script, str(folders[0])], cwd=root, check=True, timeout=120)
    process = subprocess.Popen([*script, str(folders[1])], cwd=root)
    deadline = time.monotonic() + 60
    while not (folders[1] / "state.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folders[1] / "weights.safetensors").exists()
    subprocess.run([*script, str(folders[1])], cwd=root, check=True, timeout=120)
    whole, resumed = (checkpoint.read_weights(f / "weights.safetensors") for f in folders)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_two_processes_give_the_weights_of_a_single_process(images: Path, tmp_path: Path) -> None:
    """torchrun with gloo on one machine, BatchNorm frozen: its statistics are per process."""
    root = Path(__file__).parents[3]
    folders = [tmp_path / "single", tmp_path / "pair"]
    script = ["-m", "tests.train.fitting.fit_script", str(images)]
    subprocess.run(
        [sys.executable, *script, str(folders[0]), "small-frozen"],
        cwd=root,
        check=True,
        timeout=120,
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, *script, str(folders[1]), "small-frozen"],
        cwd=root,
        check=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    single, pair = (checkpoint.read_weights(f / "weights.safetensors") for f in folders)
    start = build("small-frozen").state_dict()
    for key, weight in single.items():
        torch.testing.assert_close(weight, pair[key], atol=1e-4, rtol=1e-3)
        if key.endswith("conv0.weight"):
            assert (weight - start[key]).abs().max() > 1e-2  # trained


def test_every_preset_has_recipes_for_every_network() -> None:
    for networks in PRESETS.values():
        for legs in networks.values():
            for recipe in legs:
                assert recipe.phase_of(0) == recipe.phases[0]
                assert recipe.phase_of(recipe.epochs - 1) == recipe.phases[-1]
                assert recipe.dilated == legs[-1].dilated
            assert legs[-1].size // (16 if legs[-1].dilated else 32) >= 4
    for legs in PRESETS["full"].values():
        assert legs[-1].size // 16 >= 12


def test_a_cpu_uses_bfloat16_only_if_supported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    for capability, expected in (("avx512_bf16", True), ("amx_bf16", True), ("avx512_f", False)):
        capabilities = {capability: True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda supported=capabilities: supported)
        assert (mixed_precision_type(cpu) is torch.bfloat16) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert mixed_precision_type(cpu) is None
