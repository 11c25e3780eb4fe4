"""Several networks in one archive: their mean, how far they agree, and their novelty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handlers import decision, novelty
from handlers.card import Archived
from handlers.decision import Agreement
from handlers.engine import ModelOutput
from handlers.novelty import Novelty


@dataclass(frozen=True)
class Combined:
    """What an archive's networks answer on one image, each and together.

    `output` has the logits (2,) and maps (2, h, w) of the one network, or the mean of several;
    `positives`, the printed P(PNEUMONIA) of each network; `agreement`, of several networks.
    """

    outputs: tuple[ModelOutput, ...]
    output: ModelOutput
    positive: float
    positives: tuple[float, ...]
    agreement: Agreement | None
    novelty: Novelty | None


def combine(card: Archived, outputs: Sequence[ModelOutput]) -> Combined:
    """The networks' outputs on one image, in the order of the card's networks, combined.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    output = mean(card, outputs)
    positives = tuple(
        float(decision.printed_probability(each.logits, network.temperature))
        for network, each in zip(card.networks, outputs, strict=True)
    )
    several = len(outputs) > 1
    return Combined(
        outputs=tuple(outputs),
        output=output,
        positive=float(decision.printed_probability(output.logits, card.temperature)),
        positives=positives,
        agreement=decision.agreement(positives, [each.maps for each in outputs])
        if several
        else None,
        novelty=_novelty(card, outputs),
    )


def mean(card: Archived, outputs: Sequence[ModelOutput]) -> ModelOutput:
    """Logits (2,) and maps (2, h, w) of the one network, or the mean of several.

    Each network's are divided by its temperature first, so that `mean(map) + bias = logit` holds
    for the mean too.
    """
    if len(outputs) == 1:
        return outputs[0]
    temperatures = [network.temperature for network in card.networks]

    def calibrated_mean(arrays: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        scaled = [each / t for each, t in zip(arrays, temperatures, strict=True)]
        average: npt.NDArray[np.float32] = np.mean(scaled, axis=0).astype(np.float32)
        return average

    return ModelOutput(
        calibrated_mean([output.logits for output in outputs]),
        calibrated_mean([output.maps for output in outputs]),
    )


def _novelty(card: Archived, outputs: Sequence[ModelOutput]) -> Novelty | None:
    """How unlike the training images the image is, by the network that warns most of it."""
    return novelty.worst(
        [
            novelty.assess(network.novelty, output.distances)
            for network, output in zip(card.networks, outputs, strict=True)
            if network.novelty is not None and output.distances is not None
        ]
    )
