"""A graph with its convolutions in 8 bits, and the gate of all that is less than f32."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from handlers import novelty
from handlers.engine import Engine
from handlers.ensemble import Found
from handlers.pixels import Pixels
from train import correlation, faithful, judge, split
from train import novelty as train_novelty
from train.checkpoint import Card
from train.data import Dataset

PARTS = (split.RANDOM, split.SELECT, split.CALIBRATE)  # validation
CALIBRATION = 100  # training images that the range of each convolution's input is taken from
PHANTOMS = 200  # of the pointing game
ALTERED = 100  # X-rays that are turned and inverted
BATCH = 16
NOVELTY = "novelty"  # on a card
FEATURES_MEAN = "reference.mean"  # the graph's constant that novelty's features are centred by

# By how much the graph may differ from the one in 32 bits, at most. All on validation but the
# pointing game, which is on phantoms; correlation is the mean over images.
LIMITS = {
    "AUC lost": 0.002,
    "labels changed at the operating point": 0.005,
    "1 - correlation of decision maps": 0.02,
    "pointing game apart": 0.02,
    "mean(map) + bias - logit": 1e-3,
    "X-rays warned of as unlike": 0.02,
    "turned or inverted X-rays not warned of": 0.05,
}

Maps = npt.NDArray[np.float32]  # (N, h, w)
Gate = Mapping[str, float]  # what was found, by the names of LIMITS


def sample(dataset: Dataset) -> Pixels:
    """Training images (N, S, S) to calibrate on, drawn at random."""
    rows = dataset.rows(split.FIT)
    chosen = np.random.default_rng(0).choice(rows, min(CALIBRATION, len(rows)), replace=False)
    images: Pixels = dataset.pixels[np.sort(chosen)]
    return images


def quantise(graph: Path, images: Pixels, target: Path) -> None:
    """Write a graph with its convolutions in 8 bits, calibrated on training images (N, S, S).

    By NNCF: weights by channel, activations by tensor, biases corrected. What an activation may be
    is the widest seen: NNCF's default, the mean over images, cuts off what the rarer class has more
    of. The first convolution stays in 32 bits, since its rounding would go through all that
    follows. So do the head, the maps and the distances, which take the same features:
    `mean(map) + bias = logit` holds.
    """
    os.environ.setdefault("NNCF_CI", "1")  # or it tells its makers of each use
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # Not nncf.set_log_level: it also changes the handlers that others have put on its logger.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    whole = onnx.load(graph)
    first = next(node.name for node in whole.graph.node if node.op_type == "Conv")
    quantised = nncf.quantize(
        whole,
        nncf.Dataset([{"pixels": image[None]} for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
        # Not validated: a graph that measures no novelty has no MatMul.
        ignored_scope=nncf.IgnoredScope(
            names=[first], types=["Gemm", "Einsum", "MatMul", "ReduceMean"], validate=False
        ),
    )
    _centre_features(whole, quantised, images)
    onnx.save(quantised, target)


def _centre_features(whole: onnx.ModelProto, quantised: onnx.ModelProto, images: Pixels) -> None:
    """Move the mean of novelty's features by what 8 bits moved the features, on average.

    Distances divide by how little a feature varies, so that a shift which no logit shows would
    have every image look strange.
    """
    means = [one for one in quantised.graph.initializer if one.name == FEATURES_MEAN]
    for mean in means:  # none without a reference
        shift = (_features(quantised, images) - _features(whole, images)).mean(0)
        moved = onnx.numpy_helper.to_array(mean) + shift
        mean.CopyFrom(onnx.numpy_helper.from_array(moved, FEATURES_MEAN))


def _features(model: onnx.ModelProto, images: Pixels) -> npt.NDArray[np.float32]:
    """What the graph takes that mean from: features (N, D)."""
    (name,) = {node.input[0] for node in model.graph.node if FEATURES_MEAN in node.input}
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        opened.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    parts = [session.run([name], {"pixels": part})[0] for part in _batches(images)]
    return np.concatenate(parts)


def _batches(images: Pixels) -> list[Pixels]:
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def fit_rule(card: Card, quantised: Engine, dataset: Dataset) -> dict[str, Any]:
    """What the card of the graph in 8 bits says otherwise: novelty's rule, on its own distances.

    The noise of 8 bits makes every image look a little stranger.
    """
    if NOVELTY not in card:
        return {}

    def distances(pixels: Pixels) -> npt.NDArray[np.float32]:
        return _distances(_run(quantised, pixels, "distances"))

    return {NOVELTY: {**card[NOVELTY], **train_novelty.fit_rule(distances, dataset)}}


def gate(
    card: Card, rule: Mapping[str, Any], whole: Engine, quantised: Engine, dataset: Dataset
) -> Gate:
    """How far a network's graph in fewer bits, whose card has another `rule` of novelty, is from
    the one in 32, by the names of LIMITS."""
    rows = np.concatenate([dataset.rows(part) for part in PARTS])
    labels = dataset.labels[rows]
    one, other = (
        _run(engine, dataset.pixels[rows], f"{card['network']}, {bits}")
        for engine, bits in ((whole, "32 bits"), (quantised, "fewer bits"))
    )
    threshold = card["operating_points"][card["default_operating_point"]]["threshold"]
    scores = [
        judge.probabilities(np.stack([it.logits for it in found]), card["temperature"])[:, 1]
        for found in (one, other)
    ]
    found = {
        "AUC lost": roc_auc_score(labels, scores[0]) - roc_auc_score(labels, scores[1]),
        "labels changed at the operating point": np.mean(
            (scores[0] >= threshold) != (scores[1] >= threshold)
        ),
        "1 - correlation of decision maps": 1
        - correlation.pearson(_decisions(one), _decisions(other)).mean(),
        "pointing game apart": abs(_pointing(card, whole) - _pointing(card, quantised)),
        "mean(map) + bias - logit": max(
            float(np.abs(it.maps.mean((1, 2)) + card["bias"] - it.logits).max()) for it in other
        ),
    }
    if NOVELTY in card:
        found["X-rays warned of as unlike"] = _warned(rule, other).mean()
        found["turned or inverted X-rays not warned of"] = 1 - _least_warned(
            rule, quantised, dataset
        )
    # Shares of a count: 4 of 200 are .02, not .020000000000000018.
    return {name: round(float(value), 9) for name, value in found.items()}


def failed(gate: Gate) -> list[str]:
    """The names of what exceeds its limit."""
    return [name for name, value in gate.items() if not value <= LIMITS[name]]  # nor nan


def table(gate: Gate) -> str:
    """What was found beside what is allowed, a line each."""
    return "\n".join(
        f"  {name:<40} {value:8.1e}  at most {LIMITS[name]:.1e}"
        f"{'' if value <= LIMITS[name] else '  FAILED'}"
        for name, value in gate.items()
    )


def _run(engine: Engine, images: Pixels, desc: str) -> list[Found]:
    bar = tqdm(_batches(images), desc=desc, unit=" batches", disable=None, leave=False)
    return [found for part in bar for found in engine(part)]


def _decisions(found: list[Found]) -> Maps:
    return np.stack([one.maps[1] - one.maps[0] for one in found])


def _pointing(card: Card, engine: Engine) -> float:
    """The share of phantoms whose map's peak lies in an opacity."""
    game = faithful.pointing_game(
        lambda pixels: _decisions(_run(engine, pixels, "phantoms")), card["input"]["size"], PHANTOMS
    )
    return float(game.hit.mean())


def _distances(found: list[Found]) -> npt.NDArray[np.float32]:
    """(N, 1 + K), of a graph that measures them."""
    return np.stack([one.distances for one in found if one.distances is not None])


def _warned(rule: Mapping[str, Any], found: list[Found]) -> npt.NDArray[np.bool_]:
    return np.array([novelty.judge(rule[NOVELTY], one).unlike for one in _distances(found)])


def _least_warned(rule: Mapping[str, Any], engine: Engine, dataset: Dataset) -> float:
    """The share of `block-select` warned of, turned or inverted: that of the least one."""
    rows = dataset.rows(split.SELECT)[:ALTERED]
    altered = [train_novelty.alter(dataset.pixels[rows], one) for one in train_novelty.ALTERATIONS]
    return float(min(_warned(rule, _run(engine, one, "altered")).mean() for one in altered))
