"""The networks of an archive combined: their mean, agreement and novelty."""

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
    """The outputs of an archive's networks on one image, and their combination.

    `output` has the logits (2,) and maps (2, h, w) of the only network, or the mean of several.
    """

    outputs: tuple[ModelOutput, ...]  # of each network
    output: ModelOutput
    positive: float  # printed P(PNEUMONIA)
    positives: tuple[float, ...]  # printed P(PNEUMONIA) of each network
    agreement: Agreement | None  # None: only one network
    novelty: Novelty | None  # None: no card has a rule for it


def combine(card: Archived, outputs: Sequence[ModelOutput]) -> Combined:
    """The combination of the networks' outputs on one image, in the order of the card's networks.

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
    """Logits (2,) and maps (2, h, w) of the only network, or the mean of several.

    Before the mean, they are divided by their network's temperature. `mean(map) + bias = logit`
    then holds for the mean as well.
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
    """The novelty of an image by the network that finds it least like its training images."""
    return novelty.worst(
        [
            novelty.assess(network.novelty, output.distances)
            for network, output in zip(card.networks, outputs, strict=True)
            if network.novelty is not None and output.distances is not None
        ]
    )
