"""An evaluation → files: weights, cards, figures and the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers import card as cards
from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule
from train import augment, checkpoint, data, figures, novelty, report, sections, split, together
from train.cam import explain
from train.card import evaluated_card
from train.crosscheck import Check
from train.data import Dataset
from train.fit import Epoch
from train.judge import map_scale
from train.measure import CHECKED, Evaluation, NetworkEvaluation, spread
from train.networks import CLASSES
from train.run import HISTORY
from train.sections import Section

REPORT = "report"  # the folder in a run
GALLERY = 12  # images a network
SHOWN = 4  # images of the cross-check, in the figure

Pictures = list[tuple[str, Path]]  # title and file


def write_report(run: Path, evaluation: Evaluation) -> Path:
    """Write weights, cards, figures and the report of a run's evaluation; the report's path.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    network_cards = [save_network(network) for network in evaluation.networks]
    save_ensemble(run, evaluation, network_cards)
    folder = run / REPORT
    folder.mkdir(exist_ok=True)
    scales = [card.map.scale for card in network_cards]
    return report.write(
        folder,
        evaluation.models,
        {network.loaded.name: network.crosscheck for network in evaluation.networks},
        _about(run, network_cards),
        data.table(evaluation.dataset),
        evaluation.labels,
        draw(evaluation, scales, folder),
        sections_of(evaluation),
    )


# --- weights and cards


def save_network(evaluation: NetworkEvaluation) -> EvaluatedNetwork:
    """Write weights, novelty's reference and card of a network; the card.

    Of a network that is published already the card alone, with the figures anew.
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
    """Write the card of a run's networks as one model; without one, an older card is removed."""
    folder, ensemble, card = run / together.NAME, evaluation.ensemble, None
    if ensemble is not None:
        card = together.ensemble_card(
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


# --- sections and figures


def sections_of(evaluation: Evaluation) -> list[Section]:
    """The sections of the report beyond each part's figures."""
    networks = {network.loaded.name: network for network in evaluation.networks}
    model = evaluation.models[-1]
    texts = []
    if evaluation.differences:
        texts.append(sections.differences(evaluation.differences, evaluation.part))
    texts.append(sections.doubts(model.name, evaluation.part, evaluation.selective_prediction))
    texts.append(sections.stressed({name: each.robustness for name, each in networks.items()}))
    twins = {name: each.twins for name, each in networks.items() if each.twins is not None}
    if twins:
        texts.append(sections.twins(twins))
    evidence = {name: each.evidence for name, each in networks.items() if each.evidence is not None}
    if evidence:
        texts.append(sections.evidence(evidence))
    texts.append(sections.unlike({name: each.novelty for name, each in networks.items()}))
    return texts


def draw(evaluation: Evaluation, scales: list[float], folder: Path) -> Pictures:
    """Draw the figures of the report into a folder; `scales` are where overlays saturate."""
    models, labels, part = evaluation.models, evaluation.labels, evaluation.part
    robustness = {each.loaded.name: each.robustness for each in evaluation.networks}
    doubts, wrong = evaluation.doubts, models[-1].positive(part) != (labels == 1)
    return [
        ("Confusion matrix", figures.confusion(models, part, folder / "confusion.png")),
        ("ROC", figures.roc(models, labels, part, folder / "roc.png")),
        ("Reliability", figures.reliability(models, labels, part, folder / "reliability.png")),
        ("Decision curve", figures.decision(models, labels, part, folder / "decision.png")),
        (
            "Risk and coverage",
            figures.risk_coverage(
                models[-1].name, doubts, wrong, part, folder / "risk-coverage.png"
            ),
        ),
        ("Changed images", figures.stressed(robustness, folder / "stress.png")),
        ("Learning curves", figures.learning(_histories(evaluation), folder / "learning.png")),
        *[
            (f"{each.loaded.name}: what it looks at", _gallery(each, scale, part, folder))
            for each, scale in zip(evaluation.networks, scales, strict=True)
        ],
        *[
            (
                f"{each.loaded.name}: hook and Captum",
                draw_crosscheck(
                    each.loaded.name, each.loaded.dataset, part, each.crosscheck, folder
                ),
            )
            for each in evaluation.networks
        ],
        ("What training sees", _augmented(evaluation.dataset, folder)),
    ]


def draw_crosscheck(name: str, dataset: Dataset, part: str, check: Check, folder: Path) -> Path:
    """Draw some of the maps of a network that were cross-checked; the figure's path."""
    some = slice(None, None, CHECKED // SHOWN)
    pixels = dataset.pixels[spread(dataset, part, CHECKED)]
    shown = Check(
        check.hook[some], check.captum[some], check.map_difference, check.logit_difference
    )
    title = f"{name}: map of PNEUMONIA by hook and by Captum, {part}"
    return figures.crosschecked(pixels[some], shown, title, folder / f"crosscheck-{name}.png")


def _histories(evaluation: Evaluation) -> dict[str, list[Epoch]]:
    """Of the networks that were trained in this run."""
    files = {each.loaded.name: each.loaded.path / HISTORY for each in evaluation.networks}
    return {
        name: [Epoch(**epoch) for epoch in json.loads(file.read_text())]
        for name, file in files.items()
        if file.is_file()
    }


def _gallery(evaluation: NetworkEvaluation, scale: float, part: str, folder: Path) -> Path:
    """Right and wrong answers of both classes, with the map of the predicted class."""
    loaded, model, network = evaluation.loaded, evaluation.model, evaluation.network
    rows, labels = loaded.dataset.rows(part), loaded.dataset.labels
    scores, predicted = model.scores(part), model.positive(part).astype(int)
    chosen: list[int] = []
    for actual in range(len(CLASSES)):
        for answer in range(len(CLASSES)):
            places = np.flatnonzero((labels[rows] == actual) & (predicted == answer))
            random = np.random.default_rng([actual, answer])
            chosen += list(random.permutation(places)[: GALLERY // 4])
    pixels = loaded.dataset.pixels[rows[chosen]]
    _, maps = explain(network, torch.from_numpy(pixels).to(network.head.weight.device))
    examples = [
        figures.Example(
            f"actual {CLASSES[labels[rows[place]]]}\npredicted {CLASSES[predicted[place]]}\n"
            f"P(PNEUMONIA) = {scores[place]:.3f}",
            pixels[number],
            maps[number, predicted[place]].cpu().numpy(),
            bool(labels[rows[place]] == predicted[place]),
        )
        for number, place in enumerate(chosen)
    ]
    title = f"{loaded.name}, {part}: image, map of the predicted class, overlay as served"
    return figures.gallery(examples, scale, title, folder / f"gallery-{loaded.name}.png")


def _augmented(dataset: Dataset, folder: Path) -> Path:
    rows = spread(dataset, split.FIT, 16)
    generator = torch.Generator().manual_seed(0)
    changes = augment.draw(len(rows), augment.Strength(), generator)
    changed = augment.apply(torch.from_numpy(dataset.pixels[rows]), changes)
    pixels = changed.round().byte().numpy()
    return figures.augmented(pixels, "augmented training images", folder / "augmented.png")


# --- what the run was


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
    """The networks' seeds, once where they have the same; and that of the split, if another."""
    seeds = [str(card.training.seed) for card in network_cards]
    text = seeds[0]
    if len(set(seeds)) > 1:
        text = ", ".join(
            f"{card.network} {seed}" for card, seed in zip(network_cards, seeds, strict=True)
        )
    split_seed = str(network_cards[0].training.split_by)
    return text if {split_seed} == set(seeds) else f"{text}; of the split {split_seed}"
