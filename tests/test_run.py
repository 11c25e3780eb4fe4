"""From a folder of images to an archive, on the small network."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score

from handlers import decision, engine, files, pixels
from handlers.card import EvaluatedNetwork
from tests.small import RECIPE, small_network
from train import (
    archive,
    checkpoint,
    evaluate,
    measure,
    novelty,
    predictions,
    publish,
    recipes,
    run,
    run_facts,
    show,
)
from train.__main__ import main
from train.cam import explain
from train.checkpoint import CheckpointError
from train.export import GRAPH, ExportError, verify
from train.fit import fit
from train.graphs import ArchiveError
from train.networks import NETWORKS, build, initialise, predict
from train.options import Options
from train.publish import PublishError
from train.recipes import Phase
from train.run_facts import RunFacts
from train.trained import networks_of, published_networks

QUICK = replace(RECIPE, phases=(Phase(32, 3),), dilated=True)


@pytest.fixture
def trained(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_networks: None,
) -> Path:
    """The folder of a finished and judged run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (QUICK,))
    return train_small(images)


def train_small(images: Path, **options: object) -> Path:
    options = {"init": "scratch", **options}
    chosen = Options(data=images, preset="quick", networks=("small",), **options)  # type: ignore[arg-type]
    folder = run.train(chosen)
    evaluate.evaluate(folder)
    return folder


def test_another_seed_on_the_same_parts(trained: Path, images: Path) -> None:
    other = train_small(images, seed=1, split_seed=0)
    assert other.name == f"{trained.name[: -len('seed0')]}seed1-split0"
    assert (other / "split.csv").read_text() == (trained / "split.csv").read_text()
    first, second = (networks_of(folder)[0] for folder in (trained, other))
    assert first.dataset.parts == second.dataset.parts
    assert first.card.weights_sha256 != second.card.weights_sha256
    report = (other / "report/report.md").read_text()
    assert "| seed | 1; of the split 0 |" in report
    publish.publish(other, project=other.parent.parent)
    published = published_networks(images, None, other.parent.parent / checkpoint.PUBLISHED)
    assert published[0].dataset.parts == first.dataset.parts
    reparted = train_small(images, seed=1)
    assert networks_of(reparted)[0].dataset.parts != first.dataset.parts


def test_a_run_leaves_everything(trained: Path) -> None:
    assert (trained.parent / "latest").resolve() == trained.resolve()
    assert not list((trained / "small").glob("state*"))
    metrics = json.loads((trained / "report/metrics.json").read_text())
    test = metrics["networks"]["small"]["parts"]["test"]
    assert test["images"] == 20
    assert np.sum(test["confusion"]) == 20
    assert metrics["crosscheck"]["small"]["passed"]
    report = (trained / "report/report.md").read_text()
    for line in report.splitlines():
        if line.startswith("!["):
            assert (trained / "report" / line.split("(")[1].rstrip(")")).stat().st_size > 1000
    card = json.loads((trained / "small/card.json").read_text())
    assert card["map"]["scale"] > 0
    assert card["figures"]["test"]["auc"] == test["auc"]
    assert card["training"]["data"]["counts"]["test"] == {"NORMAL": 10, "PNEUMONIA": 10}
    assert "balanced" in card["operating_points"]


def test_judging_again_gives_the_same_weights_and_card(trained: Path) -> None:
    folder = trained / "small"
    before = {name: files.sha256(folder / name) for name in ("weights.safetensors", "card.json")}
    card = json.loads((folder / "card.json").read_text())
    shift = card["calibration"]["offset"] / 2 * np.array([-1, 1])
    assert abs(shift[1]) > 1e-4
    raw = np.array(card["calibration"]["raw_bias"])
    assert card["bias"] == pytest.approx(raw + shift, abs=1e-6)
    network, _ = checkpoint.load(folder)
    assert network.head.bias.tolist() == card["bias"]
    evaluate.evaluate(trained)
    assert {name: files.sha256(folder / name) for name in before} == before


def test_evaluation_changes_no_network_and_no_file_before_it_writes(trained: Path) -> None:
    predicted = predictions.predict(trained, True, None, ())
    (network,) = predicted.networks
    weights = {key: value.clone() for key, value in network.loaded.network.state_dict().items()}
    hashes = {path: files.sha256(path) for path in trained.rglob("*") if path.is_file()}
    evaluation = measure.measure(predicted, predictions.calibrate(predicted))
    after = network.loaded.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    assert {path: files.sha256(path) for path in trained.rglob("*") if path.is_file()} == hashes
    # What the report says of an image is what the network that will be served answers.
    (served,) = evaluation.networks
    rows = evaluation.dataset.rows("test")
    logits = predict(served.network, torch.from_numpy(evaluation.dataset.pixels[rows]), 32)
    scores = decision.printed_probability(logits.numpy(), served.model.calibration.temperature)
    np.testing.assert_allclose(served.model.scores("test"), scores, atol=1e-6)


def test_the_facts_of_older_runs_are_read(trained: Path) -> None:
    file = trained / run_facts.RUN
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({key: facts[key] for key in ("data", "preset", "seed", "networks")}))
    assert run_facts.read(trained) == RunFacts(
        data=facts["data"], preset="quick", seed=0, networks=("small",)
    )
    assert run_facts.read(trained).split_by == 0
    assert networks_of(trained)[0].name == "small"
    file.write_text(json.dumps({**facts, "seed": "0"}))
    with pytest.raises(CheckpointError, match=r"run\.json: seed: a whole number is needed"):
        networks_of(trained)
    file.write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is no JSON"):
        networks_of(trained)


def test_a_malformed_card_is_refused_with_the_fields_name(trained: Path) -> None:
    file = trained / "small/card.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "bias": "none"}))
    with pytest.raises(CheckpointError, match=r"card\.json: bias: a list is needed"):
        checkpoint.load(trained / "small")
    ensemble = {**card, "members": [{"network": "small", "weights_sha256": "0"}]}
    file.write_text(json.dumps(ensemble))
    with pytest.raises(CheckpointError, match="is an ensemble, without weights"):
        checkpoint.load(trained / "small")


def test_a_second_run_trains_nothing(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.run.fit", lambda *_args, **_options: pytest.fail("trained again"))
    assert train_small(images) == trained


@pytest.mark.usefixtures("small_networks")
def test_legs_follow_each_other_and_go_on_where_they_were(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legs = (replace(QUICK, phases=(Phase(16, 2),)), replace(QUICK, learning_rate=1e-3))
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", legs)

    def train(runs: str) -> Path:
        chosen = {"data": images, "preset": "quick", "networks": ("small",), "init": "scratch"}
        return run.train(Options(**chosen, runs=tmp_path / runs)) / "small"  # type: ignore[arg-type]

    whole = train("whole")
    history = json.loads((whole / run.HISTORY).read_text())
    assert [epoch["number"] for epoch in history] == [1, 2, 3, 4, 5]
    assert {epoch["epochs"] for epoch in history} == {5}
    left = [epoch["left"] for epoch in history]
    assert left[-1] == 0 < min(left[:-1])
    last = checkpoint.read_weights(whole / run.LEG.format(2))
    network, card = checkpoint.load(whole)
    assert all(torch.equal(value, last[key]) for key, value in network.state_dict().items())
    assert [recipe["learning_rate"] for recipe in card.training.recipes or ()] == [3e-3, 1e-3]

    calls = []

    def stopped(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("train.run.fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            train("broken")
    assert train("broken").name == "small"
    resumed = tmp_path / "broken" / whole.parent.name / "small"
    for name in ("weights.safetensors", run.LEG.format(1)):
        assert files.sha256(resumed / name) == files.sha256(whole / name)


def test_another_recipe_sets_the_old_run_aside(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files.sha256(trained / "small" / checkpoint.WEIGHTS)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (replace(QUICK, weight_decay=0.2),))
    train_small(images)
    (aside,) = trained.glob("small.*")
    assert files.sha256(aside / checkpoint.WEIGHTS) == before
    assert files.sha256(trained / "small" / checkpoint.WEIGHTS) != before


def test_validation_leaves_the_test_images_closed(trained: Path) -> None:
    evaluate.evaluate(trained, open_test=False)
    metrics = json.loads((trained / "report/metrics.json").read_text())
    assert "test" not in metrics["networks"]["small"]["parts"]
    assert json.loads((trained / "small/card.json").read_text())["figures"]["test"] is None


def test_a_failed_crosscheck_is_loud(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.crosscheck.MAP_TOLERANCE", 0.0)
    monkeypatch.setattr("train.crosscheck.LOGIT_TOLERANCE", -1.0)
    with pytest.raises(evaluate.CrosscheckError, match="Do not serve"):
        evaluate.crosscheck_run(trained)
    assert main(["crosscheck", "--run", str(trained)]) == 1


def test_the_archive_holds_all_it_needs(trained: Path, tmp_path: Path) -> None:
    examples = torch.randint(0, 256, (4, 32, 32), dtype=torch.uint8)
    path = archive.archive(trained / "small", "1.0", tmp_path / "store", tmp_path)
    assert path.name == "small-1.0.mar"
    with zipfile.ZipFile(path) as packed:
        names = set(packed.namelist())
        assert {"card.json", "classifier.py", GRAPH, "handlers/pixels.py"} <= names
        assert not any("__pycache__" in name or name.startswith("train") for name in names)
        card = json.loads(packed.read("card.json"))
        graph = tmp_path / GRAPH
        graph.write_bytes(packed.read(GRAPH))
    assert card["version"] == "1.0"
    assert card["graph"]["sha256"] == files.sha256(graph)
    network, trained_card = checkpoint.load(trained / "small")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        logits, maps, _ = session.run(None, {"pixels": examples[:count].numpy()})
        expected_logits, expected_maps = explain(network, examples[:count])
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
        np.testing.assert_allclose(maps, expected_maps, atol=1e-4)
        np.testing.assert_allclose(maps.mean((2, 3)) + card["bias"], logits, atol=1e-4)
    with pytest.raises(ArchiveError, match="numbers and dots"):
        archive.archive(trained / "small", "new", tmp_path / "store", tmp_path)
    with torch.no_grad():
        network.head.bias += 0.01
    runs = engine.load(card["graph"]["engine"], graph)
    with pytest.raises(ExportError, match="differ"):
        verify(network, runs, examples, novelty.load(trained / "small", trained_card))


def test_show_answers_a_folder(trained: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    picture = images / "test/PNEUMONIA/test-PNEUMONIA-003.png"
    (tmp_path / "some/good.png").write_bytes(picture.read_bytes())
    (tmp_path / "some/bad.png").write_text("no image")
    answers, refused = show.show(trained / "small", tmp_path / "some", tmp_path / "out")
    assert [answer.path.name for answer in answers] == ["good.png"]
    assert [path.name for path in refused] == ["bad.png"]
    network, card = checkpoint.load(trained / "small")
    logits, _ = explain(network, torch.from_numpy(pixels.decode(picture.read_bytes(), 32))[None])
    assert isinstance(card, EvaluatedNetwork)
    expected = torch.softmax(logits / card.temperature, 1)[0, 1]
    assert answers[0].probability == pytest.approx(float(expected), abs=1e-6)
    assert (tmp_path / "out/gallery.png").is_file()
    assert (tmp_path / "out/0001-good.png").is_file()


def test_weights_that_are_not_their_cards_are_refused(trained: Path) -> None:
    card = trained / "small/card.json"
    card.write_text(card.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(CheckpointError, match="take both from one run"):
        checkpoint.load(trained / "small")


def test_errors_are_told_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "nowhere"]) == 1
    assert "DATA=nowhere: there is no such folder" in caplog.text
    assert main(["archive"]) == 1
    assert "train one with make train" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["--networks", "alexnet"], "resnet50, densenet161"),
        (["--preset", "slow"], "quick"),
        (["--judge", "nobody"], "validation"),
    ],
)
def test_unknown_names_answer_with_the_known_ones(
    arguments: list[str], known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", *arguments])
    assert known in capsys.readouterr().err


@pytest.mark.minutes
@pytest.mark.parametrize("name", NETWORKS)
def test_the_real_networks_export(name: str, tmp_path: Path) -> None:
    from train.export import export, export_program

    torch.manual_seed(0)
    network = build(name).eval()
    export(network, 64, tmp_path / GRAPH)
    examples = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    for runtime in engine.OF_ONNX:
        assert verify(network, engine.load(runtime, tmp_path / GRAPH), examples) < 1e-3
    export_program(network, 64, tmp_path / "graph.pt2")
    assert verify(network, engine.load("torch", tmp_path / "graph.pt2"), examples) < 1e-3


def test_published_weights_are_archived_where_nothing_was_trained(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["publish"]) == 0
    path = tmp_path / "weights/small.safetensors"
    published, card = checkpoint.load(path)
    (leg,) = trained.glob("small/leg-*.safetensors")
    full = checkpoint.read_weights(leg)
    del full["head.bias"]  # holds the offset now
    for key, value in full.items():
        rounded = value.ndim > 1 and key != "trunk.conv0.weight"  # which comes first
        expected = value.half().float() if rounded else value
        assert torch.equal(published.state_dict()[key], expected), key
    assert isinstance(card, EvaluatedNetwork)
    assert card.half_precision is not None
    assert 0 < card.half_precision.max_probability_difference < 2e-3
    assert path.stat().st_size < 0.85 * leg.stat().st_size

    # The card's figures are those of these weights.
    (one,) = networks_of(trained)
    rows = one.dataset.rows("test")
    logits = predict(published, torch.from_numpy(one.dataset.pixels[rows]), 32)
    scores = torch.softmax(logits / card.temperature, 1)[:, 1]
    auc = roc_auc_score(one.dataset.labels[rows], scores)
    assert card.figures is not None
    assert card.figures.test is not None
    assert card.figures.test.auc == pytest.approx(auc, abs=1e-9)

    before = path.read_bytes()
    assert main(["publish"]) == 0  # again: the same
    assert path.read_bytes() == before
    assert checkpoint.load(path)[1].half_precision == card.half_precision

    assert main(["archive"]) == 0  # the run comes first
    assert "from runs" in caplog.text.splitlines()[-2]
    shutil.rmtree(tmp_path / "runs")
    assert main(["archive", "--version", "2.0"]) == 0
    assert "from weights/small.safetensors" in caplog.text.splitlines()[-2]
    assert (tmp_path / "model_store/small-2.0.mar").is_file()
    with path.open("ab") as file:
        file.write(b"x")
    assert main(["archive"]) == 1
    assert "sha256" in caplog.text.splitlines()[-1]
    assert main(["archive", "--run", "runs/other"]) == 1
    assert "train one with make train" in caplog.text.splitlines()[-1]


def test_training_goes_on_from_published_weights(
    trained: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FileNotFoundError, match=r"INIT=published: there is no weights/small"):
        train_small(images, seed=1, init="published")
    assert main(["publish"]) == 0
    folder = train_small(images, seed=1, init="published")
    path = tmp_path / "weights/small.safetensors"
    card = checkpoint.read_card(folder / "small")
    assert card.training.init == f"sha256:{files.sha256(path)}"
    assert "unfreezing from the head down" in caplog.text
    network, _ = initialise("small", "published")
    assert torch.equal(network.head.bias, checkpoint.read_weights(path)["head.bias"])
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="take both from one run"):
        initialise("small", "published")


def test_weights_that_half_precision_changes_are_not_published(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (trained / "small/weights.safetensors").read_bytes()
    monkeypatch.setattr(publish, "TOLERANCE", 0.0)
    with pytest.raises(PublishError, match="half precision changes a probability"):
        publish.publish(trained)
    monkeypatch.setattr(publish, "LARGEST", 100)
    with pytest.raises(PublishError, match="MB"):
        publish.publish(trained)
    assert not (tmp_path / "weights").exists()
    assert (trained / "small/weights.safetensors").read_bytes() == before


def test_what_comes_first_and_vectors_stay_in_full_precision() -> None:
    halves = checkpoint.in_half(small_network())
    assert [key for key, value in halves.items() if value.dtype is torch.float16] == [
        "trunk.conv1.weight",
        "head.weight",
    ]
    assert halves["trunk.conv0.weight"].dtype is torch.float32  # of 36 of 264 weights
    big = checkpoint.in_half(build("resnet50"))
    full = sum(v.numel() for v in big.values() if v.dtype is torch.float32 and v.ndim > 1)
    matrices = sum(v.numel() for v in big.values() if v.is_floating_point() and v.ndim > 1)
    assert 1 / 30 <= full / matrices < 1 / 10


def test_what_was_never_judged_is_not_archived(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (QUICK,))
    folder = run.train(Options(data=images, preset="quick", networks=("small",), init="scratch"))
    with pytest.raises(ArchiveError, match="never judged"):
        archive.archive(folder / "small", "1.0", tmp_path / "store", tmp_path)
