"""Credits in the report and the model card, by the data and lung masks on the cards."""

from handlers.card import TrainedNetwork
from handlers.records import decode
from tests import cards
from train.report import attribution


def card(data: str, *, lungs: bool = False) -> TrainedNetwork:
    document = cards.trained()
    document["training"]["data"]["name"] = data
    if lungs:
        document["training"]["lungs"] = {"images": 10, "sha256": cards.SHA256}
    return decode(TrainedNetwork, document)


def test_no_credits_for_other_data() -> None:
    phantoms = [card("phantoms", lungs=True)]
    assert attribution.report_section(phantoms) == ""
    assert attribution.model_card_paragraph(phantoms) == ""


def test_credits_for_x_rays() -> None:
    section = attribution.report_section([card("chest_xray")])
    assert section.startswith("\n## Credits\n\nThe weights learned from the X-rays of Kermany,")
    assert "10.17632/rscbjbr9sj, CC BY 4.0). The X-rays in the figures are adaptations" in section
    assert "V7" not in section
    paragraph = attribution.model_card_paragraph([card("chest_xray")])
    assert paragraph.startswith("Kermany, Zhang, Goldbaum, Mendeley Data, doi 10.17632/rscbjbr9sj")
    assert paragraph.endswith("labelled by physicians.\n\n")


def test_credits_for_lung_masks_of_any_network() -> None:
    networks = [card("chest_xray"), card("chest_xray", lungs=True)]
    assert "V7 Labs' COVID-19 X-ray dataset" in attribution.report_section(networks)
    paragraph = attribution.model_card_paragraph(networks)
    assert "annotated by CloudFactory, reviewed by V7" in paragraph.replace("\n", " ")
    assert max(map(len, paragraph.splitlines())) <= 120
