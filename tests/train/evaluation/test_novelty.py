"""Novelty: distances, the rule, and the graph's outputs."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from PIL.Image import Transpose
from scipy.spatial.distance import mahalanobis
from sklearn.datasets import load_sample_images

from handlers import decision, engine, ensemble
from handlers import novelty as rules
from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule, TriageRules
from handlers.decision import Triage
from handlers.engine import ModelOutput
from handlers.pixels import decode
from tests.small import small_network
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.evaluation import novelty, novelty_rule
from train.evaluation.novelty import Reference, alter, features, halves
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.model.networks import NETWORKS, build
from train.package.onnx_export import export, verify

RULE = NoveltyRule(threshold=2.0, alterations=("upside down", "inverted"), margins=(0.0, 0.5))


def test_distances_are_mahalanobis_distances() -> None:
    random = np.random.default_rng(0)
    mixing = np.eye(5) + 0.1 * random.normal(size=(5, 5))
    original = random.normal(size=(4000, 5)) @ mixing + 3
    mean = original.mean(0)
    reference = novelty._reference("any", original, [mean + 1, mean - 2])
    points = random.normal(size=(7, 5))
    distances = reference(torch.tensor(points).float()).numpy()
    inverse = np.linalg.inv(np.cov(original.T, bias=True))
    for point, row in zip(points, distances, strict=True):
        for shift, distance in zip((0, 1, -2), row, strict=True):
            # Ledoit-Wolf shrinkage is slight with 800 images per feature.
            expected = mahalanobis(point, mean + shift, inverse)
            assert distance == pytest.approx(expected, rel=0.02)


def test_halves_distinguish_up_from_down() -> None:
    maps = torch.arange(12.0).reshape(1, 1, 4, 3)
    assert halves(maps).tolist() == [[2.5, 8.5]]
    assert halves(maps.flip(2)).tolist() == [[8.5, 2.5]]


def test_alterations() -> None:
    pixels = np.array([[[0, 10], [20, 30]]], np.uint8)
    assert alter(pixels, "turned to the left").tolist() == [[[10, 30], [0, 20]]]
    assert alter(pixels, "upside down").tolist() == [[[30, 20], [10, 0]]]
    assert alter(pixels, "turned to the right").tolist() == [[[20, 0], [30, 10]]]
    assert alter(pixels, "inverted").tolist() == [[[255, 245], [235, 225]]]


@pytest.mark.parametrize("name", ["resnet50", "densenet161"])
def test_early_features_are_those_of_the_forward_pass(name: str) -> None:
    network = build(name).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    early_features = features(network, NETWORKS[name].early, pixels)
    hooked = []
    stage = network.trunk.get_submodule(NETWORKS[name].early)
    stage.register_forward_hook(lambda _module, _inputs, output: hooked.append(halves(output)))
    with torch.inference_mode():
        network(torch.from_numpy(pixels))
    torch.testing.assert_close(early_features, hooked[0])


@pytest.mark.parametrize(
    ("distances", "score", "resembles", "unlike"),
    [
        ([1.9, 3.0, 3.0], 0.95, None, False),
        ([2.1, 3.0, 3.0], 1.05, None, True),
        ([1.9, 3.0, 1.5], 0.95, None, False),  # nearer, but within the margin
        ([1.9, 3.0, 1.3], 0.95, "inverted", True),
        ([9.0, 1.5, 1.8], 4.5, "upside down", True),
        ([9.0, 2.5, 8.0], 4.5, None, True),  # nearest to upside down, but beyond the threshold
    ],
)
def test_the_rule(
    distances: list[float], score: float, resembles: str | None, unlike: bool
) -> None:
    assessment = rules.assess(RULE, np.array(distances, np.float32))
    assert assessment.score == pytest.approx(score)
    assert (assessment.resembles, assessment.unlike) == (resembles, unlike)
    assert (resembles or "novelty") in assessment.warning()


def test_an_ensemble_takes_the_worst_warning_of_its_networks() -> None:
    def output(*distances: float) -> ModelOutput:
        zeros = np.zeros((2, 1, 1), np.float32)
        return ModelOutput(zeros[:, 0, 0], zeros, np.array(distances, np.float32))

    network = SimpleNamespace(temperature=1.0, novelty=RULE)
    card: Any = SimpleNamespace(temperature=1.0, networks=(network, network))
    worst = ensemble.combine(card, [output(1.9, 3, 3), output(1.0, 0.5, 3)]).novelty
    assert worst is not None
    assert worst.resembles == "upside down"
    normal = ensemble.combine(card, [output(1.9, 3, 3), output(1.0, 3, 3)]).novelty
    assert normal == rules.Novelty(pytest.approx(0.95), None)
    no_rule: Any = SimpleNamespace(
        temperature=1.0, networks=(SimpleNamespace(temperature=1.0, novelty=None),)
    )
    assert ensemble.combine(no_rule, [output(9, 9, 9)]).novelty is None
    assert ensemble.combine(card, [ModelOutput(*output(9, 9, 9)[:2])] * 2).novelty is None
    bounds = TriageRules(doubt=0.0, disagreement=1.0)
    assert decision.triage(bounds, 0.9, 0.5, None, unlike=True) == Triage("review", ("unlike",))


def test_the_graph_outputs_distances(tmp_path: Path) -> None:
    network = small_network().eval()
    random = torch.Generator().manual_seed(0)
    reference = Reference(
        "relu0",
        torch.randn(8, generator=random),
        torch.randn(8, 8, generator=random),
        torch.randn(3, 8, generator=random),
    )
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=random)
    export(network, 32, tmp_path / "graph.onnx", reference)
    run = engine.load("onnxruntime", tmp_path / "graph.onnx")
    assert verify(network, run, pixels, reference) < 1e-4
    outputs = run(pixels.numpy())
    expected = reference(features(network, "relu0", pixels.numpy()))
    for output, distances in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output.distances, distances, rtol=1e-4)


def test_a_run_stores_the_reference(trained: Path) -> None:  # noqa: F811
    card = checkpoint.read_network_card(trained / "small")
    reference = novelty.load(trained / "small", card)
    assert reference is not None
    assert reference.centres.shape == (4, 8)
    assert isinstance(card, EvaluatedNetwork)
    assert card.novelty is not None
    assert card.novelty.threshold > 0
    metrics = json.loads((trained / "report/metrics.json").read_text())["novelty"]["small"]
    assert set(metrics["parts"]) == {"random", "block-select", "block-calibrate", "test"}
    # These images are noise, which looks the same upside down: no limit is set on that.
    assert metrics["parts"]["block-calibrate"] <= 1 / 8
    assert metrics["changed"]["inverted"] == 1.0
    assert "## Unlike the training images" in (trained / "report/report.md").read_text()
    (trained / "small/reference.safetensors").write_bytes(b"different")
    with pytest.raises(
        CheckpointError, match=r"reference\.safetensors is missing or not the card's"
    ):
        novelty.load(trained / "small", card)
    assert novelty.load(trained / "small", replace(card, novelty=None)) is None


# The published networks, on X-rays and on images that are none

SHARED = Path(__file__).parents[4] / "shared" / "data" / "chest_xray" / "test"
WEIGHTS = sorted((Path(__file__).parents[3] / "weights").glob("*.safetensors"))
COUNT = 40  # images of each kind


def photographs(random: np.random.Generator) -> list[Image.Image]:
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    crops = []
    for number in range(COUNT):
        picture = pictures[number % len(pictures)]
        side = int(random.uniform(0.3, 1) * min(picture.size))
        left, top = (int(random.uniform(0, length - side)) for length in picture.size)
        crops.append(picture.crop((left, top, left + side, top + side)))
    return crops


def pages(random: np.random.Generator) -> list[Image.Image]:
    drawn = []
    for number in range(COUNT):
        page = Image.new("L", (600, 800), 255)
        pen = ImageDraw.Draw(page)
        for line in range(20, 780, 14 + number % 8):
            letters = random.choice(list("abcdefghijklmno pqrstuvw xyz"), 90)
            pen.text((20, line), "".join(letters), fill=int(random.integers(0, 80)))
        drawn.append(page)
    return drawn


def noise(random: np.random.Generator) -> list[Image.Image]:
    even = [random.integers(0, 256, (300, 300)) for _ in range(COUNT // 2)]
    normal = [random.normal(128, 40, (300, 300)).clip(0, 255) for _ in range(COUNT // 2)]
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in (*even, *normal)]


def warnings(weights: Path, images: Iterable[Image.Image]) -> list[bool]:
    """Whether each image has a novelty warning, decoded as by the server."""
    network, card = checkpoint.load(weights)
    reference = novelty.load(weights, card)
    assert reference is not None
    decoded = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        decoded.append(decode(file.getvalue(), card.input.size))
    distances = reference(features(network, reference.stage, np.stack(decoded))).numpy()
    assert isinstance(card, EvaluatedNetwork)
    assert card.novelty is not None
    return novelty_rule.unlike(card.novelty, distances).tolist()


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("make", [photographs, pages, noise])
def test_published_networks_warn_of_images_that_are_no_x_rays(
    weights: Path, make: Callable[[np.random.Generator], list[Image.Image]]
) -> None:
    assert np.mean(warnings(weights, make(np.random.default_rng(0)))) >= 0.95


@pytest.mark.skipif(not SHARED.is_dir(), reason="the X-rays are not here")
@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_published_networks_warn_of_altered_x_rays_only(weights: Path) -> None:
    files = [path for kind in sorted(SHARED.iterdir()) for path in sorted(kind.glob("*"))[:COUNT]]
    images = [Image.open(path).convert("L") for path in files]
    assert np.mean(warnings(weights, images)) <= 0.02
    for turn in (
        Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270, Transpose.FLIP_TOP_BOTTOM,
    ):  # fmt: skip
        assert np.mean(warnings(weights, (image.transpose(turn) for image in images))) >= 0.95
    assert np.mean(warnings(weights, (ImageOps.invert(image) for image in images))) >= 0.95
