"""What is unlike the training images: distances, the rule, and what an archive says of it."""

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
from tests.test_run import trained  # noqa: F401 -- a fixture
from train import checkpoint, novelty, novelty_rule
from train.checkpoint import CheckpointError
from train.export import export, verify
from train.networks import NETWORKS, build
from train.novelty import Reference, alter, features, halves

RULE = NoveltyRule(threshold=2.0, alterations=("upside down", "inverted"), margins=(0.0, 0.5))


def test_distances_are_those_of_mahalanobis() -> None:
    random = np.random.default_rng(0)
    mixing = np.eye(5) + 0.1 * random.normal(size=(5, 5))
    usual = random.normal(size=(4000, 5)) @ mixing + 3
    reference = novelty._reference("any", usual, [usual.mean(0) + 1, usual.mean(0) - 2])
    points = random.normal(size=(7, 5))
    found = reference(torch.tensor(points).float()).numpy()
    inverse = np.linalg.inv(np.cov(usual.T, bias=True))
    for point, distances in zip(points, found, strict=True):
        for shift, distance in zip((0, 1, -2), distances, strict=True):
            # Ledoit and Wolf's shrinkage is slight with 800 images a feature.
            expected = mahalanobis(point, usual.mean(0) + shift, inverse)
            assert distance == pytest.approx(expected, rel=0.02)


def test_halves_know_up_from_down() -> None:
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
def test_early_features_are_those_on_the_way_to_the_answer(name: str) -> None:
    network = build(name).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    found = features(network, NETWORKS[name].early, pixels)
    kept = []
    stage = network.trunk.get_submodule(NETWORKS[name].early)
    stage.register_forward_hook(lambda _module, _inputs, output: kept.append(halves(output)))
    with torch.inference_mode():
        network(torch.from_numpy(pixels))
    torch.testing.assert_close(found, kept[0])


@pytest.mark.parametrize(
    ("distances", "score", "resembles", "unlike"),
    [
        ([1.9, 3.0, 3.0], 0.95, None, False),
        ([2.1, 3.0, 3.0], 1.05, None, True),
        ([1.9, 3.0, 1.5], 0.95, None, False),  # not nearer by more than the margin
        ([1.9, 3.0, 1.3], 0.95, "inverted", True),
        ([9.0, 1.5, 1.8], 4.5, "upside down", True),
        ([9.0, 2.5, 8.0], 4.5, None, True),  # nearer to upside down, and like nothing
    ],
)
def test_the_rule(
    distances: list[float], score: float, resembles: str | None, unlike: bool
) -> None:
    found = rules.assess(RULE, np.array(distances, np.float32))
    assert found.score == pytest.approx(score)
    assert (found.resembles, found.unlike) == (resembles, unlike)
    assert (resembles or "novelty") in found.warning()


def test_of_several_networks_one_warning_counts() -> None:
    def output(*distances: float) -> ModelOutput:
        zeros = np.zeros((2, 1, 1), np.float32)
        return ModelOutput(zeros[:, 0, 0], zeros, np.array(distances, np.float32))

    network = SimpleNamespace(temperature=1.0, novelty=RULE)
    card: Any = SimpleNamespace(temperature=1.0, networks=(network, network))
    worst = ensemble.combine(card, [output(1.9, 3, 3), output(1.0, 0.5, 3)]).novelty
    assert worst is not None
    assert worst.resembles == "upside down"
    calm = ensemble.combine(card, [output(1.9, 3, 3), output(1.0, 3, 3)]).novelty
    assert calm == rules.Novelty(pytest.approx(0.95), None)
    without: Any = SimpleNamespace(
        temperature=1.0, networks=(SimpleNamespace(temperature=1.0, novelty=None),)
    )
    assert ensemble.combine(without, [output(9, 9, 9)]).novelty is None
    assert ensemble.combine(card, [ModelOutput(*output(9, 9, 9)[:2])] * 2).novelty is None
    bounds = TriageRules(doubt=0.0, disagreement=1.0)
    assert decision.triage(bounds, 0.9, 0.5, None, unlike=True) == Triage("review", ("unlike",))


def test_the_graph_answers_with_distances(tmp_path: Path) -> None:
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
    runs = engine.load("onnxruntime", tmp_path / "graph.onnx")
    assert verify(network, runs, pixels, reference) < 1e-4
    found = runs(pixels.numpy())
    expected = reference(features(network, "relu0", pixels.numpy()))
    for one, distances in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.distances, distances, rtol=1e-4)


def test_a_run_keeps_its_reference(trained: Path) -> None:  # noqa: F811
    card = checkpoint.read_network_card(trained / "small")
    reference = novelty.load(trained / "small", card)
    assert reference is not None
    assert reference.centres.shape == (4, 8)
    assert isinstance(card, EvaluatedNetwork)
    assert card.novelty is not None
    assert card.novelty.threshold > 0
    metrics = json.loads((trained / "report/metrics.json").read_text())["novelty"]["small"]
    assert set(metrics["parts"]) == {"random", "block-select", "block-calibrate", "test"}
    # These images are noise, the same upside down: nothing may be said of that.
    assert metrics["parts"]["block-calibrate"] <= 1 / 8
    assert metrics["changed"]["inverted"] == 1.0
    assert "## Unlike the training images" in (trained / "report/report.md").read_text()
    (trained / "small/reference.safetensors").write_bytes(b"another")
    with pytest.raises(
        CheckpointError, match=r"reference\.safetensors is missing or not the card's"
    ):
        novelty.load(trained / "small", card)
    assert novelty.load(trained / "small", replace(card, novelty=None)) is None


# The published networks, on what hospitals and others send

SHARED = Path(__file__).parents[2] / "shared" / "data" / "chest_xray" / "test"
WEIGHTS = sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))
COUNT = 40  # of each kind


def photographs(random: np.random.Generator) -> list[Image.Image]:
    pictures = [Image.fromarray(one) for one in load_sample_images().images]
    found = []
    for number in range(COUNT):
        picture = pictures[number % len(pictures)]
        side = int(random.uniform(0.3, 1) * min(picture.size))
        left, top = (int(random.uniform(0, length - side)) for length in picture.size)
        found.append(picture.crop((left, top, left + side, top + side)))
    return found


def pages(random: np.random.Generator) -> list[Image.Image]:
    found = []
    for number in range(COUNT):
        page = Image.new("L", (600, 800), 255)
        pen = ImageDraw.Draw(page)
        for line in range(20, 780, 14 + number % 8):
            letters = random.choice(list("abcdefghijklmno pqrstuvw xyz"), 90)
            pen.text((20, line), "".join(letters), fill=int(random.integers(0, 80)))
        found.append(page)
    return found


def noise(random: np.random.Generator) -> list[Image.Image]:
    even = [random.integers(0, 256, (300, 300)) for _ in range(COUNT // 2)]
    normal = [random.normal(128, 40, (300, 300)).clip(0, 255) for _ in range(COUNT // 2)]
    return [Image.fromarray(one.astype(np.uint8)) for one in (*even, *normal)]


def warned(weights: Path, images: Iterable[Image.Image]) -> list[bool]:
    """Which images are warned of, each decoded as the server does."""
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
def test_published_networks_warn_of_what_is_no_x_ray(
    weights: Path, make: Callable[[np.random.Generator], list[Image.Image]]
) -> None:
    assert np.mean(warned(weights, make(np.random.default_rng(0)))) >= 0.95


@pytest.mark.skipif(not SHARED.is_dir(), reason="the X-rays are not here")
@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_published_networks_warn_of_turned_and_inverted_x_rays_alone(weights: Path) -> None:
    files = [path for kind in sorted(SHARED.iterdir()) for path in sorted(kind.glob("*"))[:COUNT]]
    images = [Image.open(path).convert("L") for path in files]
    assert np.mean(warned(weights, images)) <= 0.02
    for turn in (
        Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270, Transpose.FLIP_TOP_BOTTOM,
    ):  # fmt: skip
        assert np.mean(warned(weights, (image.transpose(turn) for image in images))) >= 0.95
    assert np.mean(warned(weights, (ImageOps.invert(image) for image in images))) >= 0.95
