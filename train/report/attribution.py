"""Credits that CC BY 4.0 requires for networks trained on the data set `chest_xray`."""

import textwrap
from collections.abc import Sequence

from handlers.card import TrainedNetwork

DATA_SET = "chest_xray"  # the data set's name on the cards
WIDTH = 120  # columns of the model card

_XRAYS = "Mendeley Data, doi 10.17632/rscbjbr9sj"
_MASKS = (
    "lung masks of V7 Labs' COVID-19 X-ray dataset (CC BY 4.0; annotated by CloudFactory, "
    "reviewed by V7)"
)


def report_section(cards: Sequence[TrainedNetwork]) -> str:
    """The report's section on credits, in Markdown; empty if no card is of `chest_xray`."""
    if not _trained_on_chest_xray(cards):
        return ""
    masks, xrays = "", "them"
    if _trained_with_masks(cards):
        masks, xrays = f" and from {_MASKS}", "the former"
    return (
        "\n## Credits\n\n"
        f"The weights learned from the X-rays of Kermany, Zhang and Goldbaum ({_XRAYS}, CC BY 4.0)"
        f"{masks}. The X-rays in the figures are adaptations of {xrays}: scaled down, some "
        "augmented, maps drawn over them.\n"
    )


def model_card_paragraph(cards: Sequence[TrainedNetwork]) -> str:
    """The model card's paragraph on the data's origin; empty if no card is of `chest_xray`."""
    if not _trained_on_chest_xray(cards):
        return ""
    sentences = (
        f"Kermany, Zhang, Goldbaum, {_XRAYS} (CC BY 4.0): children of one to five years in one "
        "hospital in Guangzhou, labelled by physicians."
    )
    if _trained_with_masks(cards):
        sentences += f" The published weights also learned from {_MASKS}."
    return textwrap.fill(sentences, WIDTH, break_on_hyphens=False) + "\n\n"


def _trained_on_chest_xray(cards: Sequence[TrainedNetwork]) -> bool:
    return any(card.training.data.name == DATA_SET for card in cards)


def _trained_with_masks(cards: Sequence[TrainedNetwork]) -> bool:
    return any(card.training.lungs is not None for card in cards)
