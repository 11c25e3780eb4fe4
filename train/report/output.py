"""Writes an evaluation to files: weights, cards, figures and the report."""

from pathlib import Path
from typing import Any

from handlers import card as cards
from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule
from train.data import dataset
from train.evaluation import ensemble as ensembles
from train.evaluation import novelty
from train.evaluation.calibrated_model import map_scale
from train.evaluation.card import evaluated_card
from train.evaluation.measurement import Evaluation, NetworkEvaluation
from train.model import checkpoint
from train.report import markdown, report_figures, report_sections
from train.report.report_sections import Section

REPORT = "report"  # the folder in a run


def write_report(run: Path, evaluation: Evaluation) -> Path:
    """Write weights, cards, figures and the report of a run's evaluation; the report's path.

    Raises:
        CheckpointError: the disk is full or the folder is read-only.
    """
    network_cards = [save_network(network) for network in evaluation.networks]
    save_ensemble(run, evaluation, network_cards)
    folder = run / REPORT
    folder.mkdir(exist_ok=True)
    scales = [card.map.scale for card in network_cards]
    return markdown.write(
        folder,
        evaluation.models,
        {network.loaded.name: network.crosscheck for network in evaluation.networks},
        _about(run, network_cards),
        dataset.table(evaluation.dataset),
        evaluation.labels,
        report_figures.draw(evaluation, scales, folder),
        sections_of(evaluation),
    )


# --- weights and cards


def save_network(evaluation: NetworkEvaluation) -> EvaluatedNetwork:
    """Write a network's weights, novelty reference and card; returns the card.

    For a network that is published already, only the card is written, with the new figures.
    """
    predictions, loaded = evaluation.predictions, evaluation.loaded
    published = predictions.published
    rule: NoveltyRule | None
    if published is None:
        bias: tuple[float, ...] = tuple(evaluation.network.head.bias.tolist())
        rule = novelty.save(loaded.path, predictions.distances.reference, evaluation.novelty_rule)
    else:
        bias, rule = published.bias, published.novelty
    card = evaluated_card(
        loaded.card,
        evaluation.model,
        loaded.dataset,
        bias=bias,
        scale=map_scale(predictions.maps),
        novelty=rule,
    )
    if published is None:
        return checkpoint.save(loaded.path, evaluation.network, card)
    checkpoint.write_card(loaded.path, card)
    return card


def save_ensemble(run: Path, evaluation: Evaluation, network_cards: list[EvaluatedNetwork]) -> None:
    """Write the ensemble's card to the run, or remove an older one if there is no ensemble."""
    folder, ensemble, card = run / ensembles.NAME, evaluation.ensemble, None
    if ensemble is not None:
        card = ensembles.ensemble_card(
            network_cards,
            ensemble.model,
            [network.predictions.maps for network in evaluation.networks],
            evaluation.dataset,
            ensemble.triage,
        )
    if card is None:
        (folder / cards.CARD).unlink(missing_ok=True)
    else:
        checkpoint.write_card(folder, card)


# --- sections


def sections_of(evaluation: Evaluation) -> list[Section]:
    """The sections of the report beyond each part's figures."""
    networks, part = evaluation.networks, evaluation.part
    robustness = {network.loaded.name: network.robustness for network in networks}
    resolution = {n.loaded.name: n.resolution for n in networks if n.resolution is not None}
    evidence = {n.loaded.name: n.evidence for n in networks if n.evidence is not None}
    novelty = {network.loaded.name: network.novelty for network in networks}
    sections = []
    if evaluation.differences:
        sections.append(report_sections.differences(evaluation.differences, part))
    sections.append(
        report_sections.selective_prediction(
            evaluation.models[-1].name, part, evaluation.selective_prediction
        )
    )
    sections.append(report_sections.corruptions(robustness))
    if resolution:
        sections.append(report_sections.resolution(resolution))
    if evidence:
        sections.append(report_sections.evidence(evidence))
    sections.append(report_sections.novelty(novelty))
    return sections


# --- description of the run


def _about(run: Path, network_cards: list[EvaluatedNetwork]) -> dict[str, Any]:
    training = network_cards[0].training
    return {
        "run": run.resolve().name,
        "data": f"{training.data.name} (sha256 {training.data.sha256[:12]})",
        "preset": training.preset,
        "seed": _seeds(network_cards),
        "start": ", ".join(f"{card.network} {card.training.init}" for card in network_cards),
        "image size": ", ".join(f"{card.network} {card.input.size} px" for card in network_cards),
        "map": ", ".join(
            f"{card.network} {card.map.rows}×{card.map.columns}" for card in network_cards
        ),
        "warnings": sorted({warning for card in network_cards for warning in card.warnings}),
    }


def _seeds(network_cards: list[EvaluatedNetwork]) -> str:
    """The networks' seeds, once if all are equal, and the split's seed if it differs."""
    seeds = [str(card.training.seed) for card in network_cards]
    text = seeds[0]
    if len(set(seeds)) > 1:
        text = ", ".join(
            f"{card.network} {seed}" for card, seed in zip(network_cards, seeds, strict=True)
        )
    split_seed = str(network_cards[0].training.split_by)
    return text if {split_seed} == set(seeds) else f"{text}; of the split {split_seed}"
