"""A graph with its convolutions in 8 bits, and the gate of all that is less than f32."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from handlers import decision
from handlers.arrays import Pixels
from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule
from handlers.engine import Engine, ModelOutput
from train import faithful, novelty, novelty_rule, split
from train.data import Dataset

PARTS = (split.RANDOM, split.SELECT, split.CALIBRATE)  # validation
CALIBRATION = 100  # training images that the range of each convolution's input is taken from
PHANTOMS = 200  # of the pointing game
ALTERED = 100  # X-rays that are turned and inverted
BATCH = 16
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
Gate = Mapping[str, float]  # differences, by the names of LIMITS


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
    means = [each for each in quantised.graph.initializer if each.name == FEATURES_MEAN]
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


def fit_rule(card: EvaluatedNetwork, quantised: Engine, dataset: Dataset) -> NoveltyRule | None:
    """Novelty's rule for the card of the graph in 8 bits, on its own distances.

    The noise of 8 bits makes every image look a little stranger.
    """
    if card.novelty is None:
        return None

    def measure(pixels: Pixels) -> npt.NDArray[np.float32]:
        return _distances(_run(quantised, pixels, "distances"))

    rule = novelty_rule.fit(novelty.measure_calibration(measure, dataset))
    return replace(rule, stage=card.novelty.stage, reference_sha256=card.novelty.reference_sha256)


def gate(
    card: EvaluatedNetwork,
    rule: NoveltyRule | None,
    whole: Engine,
    quantised: Engine,
    dataset: Dataset,
) -> Gate:
    """How far a network's graph in fewer bits, whose card has another `rule` of novelty, is from
    the one in 32, by the names of LIMITS."""
    rows = np.concatenate([dataset.rows(part) for part in PARTS])
    labels = dataset.labels[rows]
    outputs, quantised_outputs = (
        _run(engine, dataset.pixels[rows], f"{card.network}, {bits}")
        for engine, bits in ((whole, "32 bits"), (quantised, "fewer bits"))
    )
    scores = [
        decision.printed_probability(
            np.stack([each.logits for each in of_engine]), card.temperature
        )
        for of_engine in (outputs, quantised_outputs)
    ]
    positive = [decision.is_positive(of_engine, card.threshold) for of_engine in scores]
    correlations = decision.correlation(_decision_maps(outputs), _decision_maps(quantised_outputs))
    differences = {
        "AUC lost": roc_auc_score(labels, scores[0]) - roc_auc_score(labels, scores[1]),
        "labels changed at the operating point": np.mean(positive[0] != positive[1]),
        # A map that is constant agrees with none.
        "1 - correlation of decision maps": 1 - np.nan_to_num(correlations).mean(),
        "pointing game apart": abs(_pointing(card, whole) - _pointing(card, quantised)),
        "mean(map) + bias - logit": max(
            float(np.abs(each.maps.mean((1, 2)) + card.bias - each.logits).max())
            for each in quantised_outputs
        ),
    }
    if rule is not None:
        warned = novelty_rule.unlike(rule, _distances(quantised_outputs))
        differences["X-rays warned of as unlike"] = warned.mean()
        differences["turned or inverted X-rays not warned of"] = 1 - _least_warned(
            rule, quantised, dataset
        )
    # Shares of a count: 4 of 200 are 0.02, not 0.020000000000000018.
    return {name: round(float(value), 9) for name, value in differences.items()}


def failed(gate: Gate) -> list[str]:
    """The names of what exceeds its limit."""
    return [name for name, value in gate.items() if not value <= LIMITS[name]]  # nor nan


def table(gate: Gate) -> str:
    """Each difference beside its limit, a line each."""
    return "\n".join(
        f"  {name:<40} {value:8.1e}  at most {LIMITS[name]:.1e}"
        f"{'' if value <= LIMITS[name] else '  FAILED'}"
        for name, value in gate.items()
    )


def _run(engine: Engine, images: Pixels, desc: str) -> list[ModelOutput]:
    bar = tqdm(_batches(images), desc=desc, unit=" batches", disable=None, leave=False)
    return [output for batch in bar for output in engine(batch)]


def _decision_maps(outputs: list[ModelOutput]) -> Maps:
    return np.stack([each.maps[1] - each.maps[0] for each in outputs])


def _pointing(card: EvaluatedNetwork, engine: Engine) -> float:
    """The share of phantoms whose map's peak lies in an opacity."""
    game = faithful.pointing_game(
        lambda pixels: _decision_maps(_run(engine, pixels, "phantoms")), card.input.size, PHANTOMS
    )
    return float(game.hit.mean())


def _distances(outputs: list[ModelOutput]) -> npt.NDArray[np.float32]:
    """(N, 1 + K), of a graph that measures them."""
    return np.stack([each.distances for each in outputs if each.distances is not None])


def _least_warned(rule: NoveltyRule, engine: Engine, dataset: Dataset) -> float:
    """The share of `block-select` warned of, turned or inverted: that of the least one."""
    rows = dataset.rows(split.SELECT)[:ALTERED]
    altered = [novelty.alter(dataset.pixels[rows], name) for name in novelty.ALTERATIONS]
    return float(
        min(
            novelty_rule.unlike(rule, _distances(_run(engine, pixels, "altered"))).mean()
            for pixels in altered
        )
    )
