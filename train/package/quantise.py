"""Quantises a graph's convolutions to 8 bits, and limits what reduced precision may change."""

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
from train.data import splits
from train.data.dataset import Dataset
from train.evaluation import cam_faithfulness, novelty, novelty_rule

PARTS = (splits.RANDOM, splits.SELECT, splits.CALIBRATE)  # validation
CALIBRATION = 100  # training images for the input ranges of the convolutions
PHANTOMS = 200  # of the pointing game
ALTERED = 100  # X-rays that are turned and inverted
BATCH = 16
FEATURES_MEAN = "reference.mean"  # the graph's constant that centres novelty's features

# Largest differences from the graph in f32. They are measured on validation, the pointing game on
# phantoms; the correlation is the mean over images.
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


def calibration_images(dataset: Dataset) -> Pixels:
    """Random training images (N, S, S) to calibrate on; always the same."""
    rows = dataset.rows(splits.FIT)
    chosen = np.random.default_rng(0).choice(rows, min(CALIBRATION, len(rows)), replace=False)
    images: Pixels = dataset.pixels[np.sort(chosen)]
    return images


def quantise(graph: Path, images: Pixels, target: Path) -> None:
    """Write a graph with its convolutions in 8 bits, calibrated on training images (N, S, S).

    Uses NNCF: weights per channel, activations per tensor, biases corrected. An activation's range
    is the full range over all images. NNCF's default, the mean over images, clips activations that
    are larger in the rarer class. The first convolution stays in f32, because its rounding errors
    would pass through all later layers. The head, the maps and the distances use the same features
    in f32, so `mean(map) + bias = logit` holds.
    """
    os.environ.setdefault("NNCF_CI", "1")  # Without it, NNCF sends telemetry.
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # Not nncf.set_log_level: it would also change the handlers on NNCF's logger.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    full = onnx.load(graph)
    first = next(node.name for node in full.graph.node if node.op_type == "Conv")
    quantised = nncf.quantize(
        full,
        nncf.Dataset([{"pixels": image[None]} for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
        # Not validated: a graph without novelty has no MatMul.
        ignored_scope=nncf.IgnoredScope(
            names=[first], types=["Gemm", "Einsum", "MatMul", "ReduceMean"], validate=False
        ),
    )
    _centre_features(full, quantised, images)
    onnx.save(quantised, target)


def _centre_features(full: onnx.ModelProto, quantised: onnx.ModelProto, images: Pixels) -> None:
    """Shift the mean of novelty's features by the average shift that 8 bits cause.

    Distances divide by the features' standard deviations. A shift too small to change a logit could
    therefore make every image look novel.
    """
    means = [tensor for tensor in quantised.graph.initializer if tensor.name == FEATURES_MEAN]
    for mean in means:  # none without a reference
        shift = (_features(quantised, images) - _features(full, images)).mean(0)
        moved = onnx.numpy_helper.to_array(mean) + shift
        mean.CopyFrom(onnx.numpy_helper.from_array(moved, FEATURES_MEAN))


def _features(model: onnx.ModelProto, images: Pixels) -> npt.NDArray[np.float32]:
    """Novelty's features (N, D) before they are centred."""
    (name,) = {node.input[0] for node in model.graph.node if FEATURES_MEAN in node.input}
    with_features = onnx.ModelProto()
    with_features.CopyFrom(model)
    with_features.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        with_features.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    batches = [session.run([name], {"pixels": batch})[0] for batch in _batches(images)]
    return np.concatenate(batches)


def _batches(images: Pixels) -> list[Pixels]:
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def fit_rule(card: EvaluatedNetwork, reduced: Engine, dataset: Dataset) -> NoveltyRule | None:
    """The novelty rule for a graph in reduced precision, fitted on its distances.

    Rounding noise makes all distances a little larger. None if the network's card has no rule.
    """
    if card.novelty is None:
        return None

    def measure(pixels: Pixels) -> npt.NDArray[np.float32]:
        return _distances(_run(reduced, pixels, "distances"))

    rule = novelty_rule.fit(novelty.measure_calibration(measure, dataset))
    return replace(rule, stage=card.novelty.stage, reference_sha256=card.novelty.reference_sha256)


def gate(
    card: EvaluatedNetwork,
    rule: NoveltyRule | None,
    full: Engine,
    reduced: Engine,
    dataset: Dataset,
) -> Gate:
    """Differences between a network's graphs in f32 and in reduced precision, by name as in LIMITS.

    `rule` is the novelty rule for the graph in reduced precision.
    """
    rows = np.concatenate([dataset.rows(part) for part in PARTS])
    labels, pixels = dataset.labels[rows], dataset.pixels[rows]
    full_outputs = _run(full, pixels, f"{card.network}, f32")
    reduced_outputs = _run(reduced, pixels, f"{card.network}, reduced precision")
    full_scores, reduced_scores = (
        decision.printed_probability(
            np.stack([output.logits for output in outputs]), card.temperature
        )
        for outputs in (full_outputs, reduced_outputs)
    )
    changed_labels = decision.is_positive(full_scores, card.threshold) != decision.is_positive(
        reduced_scores, card.threshold
    )
    correlations = decision.correlation(
        _decision_maps(full_outputs), _decision_maps(reduced_outputs)
    )
    differences = {
        "AUC lost": roc_auc_score(labels, full_scores) - roc_auc_score(labels, reduced_scores),
        "labels changed at the operating point": changed_labels.mean(),
        # A constant map correlates with nothing.
        "1 - correlation of decision maps": 1 - np.nan_to_num(correlations).mean(),
        "pointing game apart": abs(_pointing(card, full) - _pointing(card, reduced)),
        "mean(map) + bias - logit": max(
            float(np.abs(output.maps.mean((1, 2)) + card.bias - output.logits).max())
            for output in reduced_outputs
        ),
    }
    if rule is not None:
        warnings = novelty_rule.unlike(rule, _distances(reduced_outputs))
        differences["X-rays warned of as unlike"] = warnings.mean()
        differences["turned or inverted X-rays not warned of"] = 1 - _least_warned(
            rule, reduced, dataset
        )
    # Rounded, since they are shares of a count: 4 of 200 are 0.02, not 0.020000000000000018.
    return {name: round(float(difference), 9) for name, difference in differences.items()}


def failures(gate: Gate) -> list[str]:
    """The names of the differences that exceed their limits, or are NaN."""
    return [name for name, difference in gate.items() if not difference <= LIMITS[name]]


def table(gate: Gate) -> str:
    """A line of text for each difference, with its limit."""
    return "\n".join(
        f"  {name:<40} {difference:8.1e}  at most {LIMITS[name]:.1e}"
        f"{'' if difference <= LIMITS[name] else '  FAILED'}"
        for name, difference in gate.items()
    )


def _run(engine: Engine, images: Pixels, desc: str) -> list[ModelOutput]:
    """The engine's outputs, one per image (S, S)."""
    batches = tqdm(_batches(images), desc=desc, unit=" batches", disable=None, leave=False)
    return [output for batch in batches for output in engine(batch)]


def _decision_maps(outputs: list[ModelOutput]) -> Maps:
    return np.stack([output.maps[1] - output.maps[0] for output in outputs])


def _pointing(card: EvaluatedNetwork, engine: Engine) -> float:
    """The share of phantoms in which the map's peak lies in an opacity."""
    result = cam_faithfulness.pointing_game(
        lambda pixels: _decision_maps(_run(engine, pixels, "phantoms")), card.input.size, PHANTOMS
    )
    return float(result.hit.mean())


def _distances(outputs: list[ModelOutput]) -> npt.NDArray[np.float32]:
    """Distances (N, 1 + K) of outputs that have them."""
    return np.stack([output.distances for output in outputs if output.distances is not None])


def _least_warned(rule: NoveltyRule, engine: Engine, dataset: Dataset) -> float:
    """The share of altered images of `block-select` with a warning, least over the alterations."""
    rows = dataset.rows(splits.SELECT)[:ALTERED]
    altered = [novelty.alter(dataset.pixels[rows], name) for name in novelty.ALTERATIONS]
    return float(
        min(
            novelty_rule.unlike(rule, _distances(_run(engine, pixels, "altered"))).mean()
            for pixels in altered
        )
    )
