"""Judge a run: figures, cross-check and report for the networks in its folder."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train import (
    augment,
    card,
    checkpoint,
    crosscheck,
    data,
    figures,
    further,
    judge,
    memory,
    novelty,
    report,
    sections,
    split,
    together,
)
from train.cam import explain
from train.card import split_seed
from train.checkpoint import Card
from train.crosscheck import Check
from train.data import Dataset
from train.fit import Epoch
from train.judge import Judged, Maps
from train.networks import CLASSES, Classifier
from train.novelty import Fitted
from train.options import device
from train.run import HISTORY
from train.trained import Trained, networks_of

log = logging.getLogger(__name__)

GALLERY = 12  # images a network
CHECKED = 16  # images the maps are cross-checked on
SHOWN = 4  # of them, in the figure


class CrosscheckError(RuntimeError):
    """The hook's maps are not Captum's: the explanations can't be trusted."""


def evaluate(
    run: Path,
    open_test: bool = True,
    twins_in: Path | None = None,
    finished: Collection[str] = (),
) -> Path:
    """Judge, cross-check and report every network of a run, and all together; the report's path.

    Temperature and operating points go onto the cards. `twins_in` is a folder of originals, by
    class, of images that the data set has smaller copies of. The `finished` networks keep their
    weights to the byte, and with them temperature, offset and novelty's reference.

    Raises:
        CrosscheckError: after the report is written, where the maps disagree.
    """
    memory.keep()
    trained = networks_of(run)
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    parts = judge.parts_of(trained[0].dataset, open_test)
    main = split.TEST if split.TEST in parts else split.SELECT
    judged = []
    for one in trained:
        log.info("judging %s on %s", one.name, ", ".join(parts))
        _set_bias(one.network, card.raw_bias(one.card))
        logits = judge.run_network(one.network, one.dataset, parts, device())
        known = card.calibration(one.card) if one.name in finished else None
        judged.append(judge.judge_network(one.name, one.dataset, logits, known))
    maps = [judge.maps_of(one.network, one.dataset, device()) for one in trained]
    strange = [_unlike(one, parts, one.name in finished) for one in trained]
    cards = [
        _complete(*each, finished) for each in zip(trained, judged, maps, strange, strict=True)
    ]
    if len(judged) > 1:
        judged.append(judge.judge_both(trained[0].dataset, judged))
    unlike = {part: np.any([one.unlike[part] for one in strange], axis=0) for part in parts}
    together.write(run, cards, judged, maps, trained[0].dataset, unlike)
    more, pictures = further.examine(trained, judged, main, folder, twins_in)
    more.append(sections.unlike({one.name: its for one, its in zip(trained, strange, strict=True)}))
    checks = _crosscheck(trained, main, folder)
    dataset = trained[0].dataset
    labels = dataset.labels[dataset.rows(main)]
    drawn = [
        ("Confusion matrix", figures.confusion(judged, main, folder / "confusion.png")),
        ("ROC", figures.roc(judged, labels, main, folder / "roc.png")),
        ("Reliability", figures.reliability(judged, labels, main, folder / "reliability.png")),
        ("Decision curve", figures.decision(judged, labels, main, folder / "decision.png")),
        *pictures,
        ("Learning curves", figures.learning(_histories(trained), folder / "learning.png")),
        *[
            (f"{one.name}: what it looks at", _gallery(one, its_card, found, main, folder))
            for one, its_card, found in zip(trained, cards, judged, strict=False)
        ],
        *[(f"{name}: hook and Captum", folder / f"crosscheck-{name}.png") for name in checks],
        ("What training sees", _augmented(dataset, folder)),
    ]
    about = _about(run, cards)
    table = data.table(dataset)
    written = report.write(folder, judged, checks, about, table, labels, drawn, more)
    for found in judged:
        log.info(
            "%s on %s: AUC %.3f, accuracy %.3f",
            found.name,
            main,
            found.parts[main].auc,
            found.parts[main].accuracy,
        )
    fail_loudly(checks)
    return written


def fail_loudly(checks: Mapping[str, Check]) -> None:
    """Raise CrosscheckError where a check has not passed."""
    for name, check in checks.items():
        log.info("cross-check %s %s", name, check.line())
    failed = [name for name, check in checks.items() if not check.passed]
    if failed:
        raise CrosscheckError(
            f"the maps of {', '.join(failed)} are not Captum's: see report.md. Do not serve them."
        )


def crosscheck_run(run: Path, open_test: bool = True) -> dict[str, Check]:
    """Cross-check every network of a run on test images, else on `block-select`.

    Raises:
        CrosscheckError: the maps disagree.
    """
    trained = networks_of(run)
    parts = judge.parts_of(trained[0].dataset, open_test)
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    checks = _crosscheck(trained, split.TEST if split.TEST in parts else split.SELECT, folder)
    fail_loudly(checks)
    return checks


def _unlike(one: Trained, parts: list[str], finished: bool) -> Fitted:
    reference = novelty.load(one.folder, one.card) if finished else None
    return novelty.fit(one.network, one.name, one.dataset, parts, reference)


def _complete(
    one: Trained, found: Judged, maps: Maps, strange: Fitted, finished: Collection[str]
) -> Card:
    """Fold the offset into the head's bias; weights, reference and card anew.

    Of a finished network the card alone, with the figures anew.
    """
    complete = card.complete(one.card, found, judge.map_scale(maps), one.dataset)
    raw = np.array([complete["calibration"]["raw_bias"]])
    _set_bias(one.network, found.calibration.shift(raw)[0].tolist())
    if one.name in finished:
        checkpoint.write_card(one.folder, complete)
        return complete
    complete["bias"] = one.network.head.bias.tolist()
    complete = novelty.save(one.folder, strange, complete)
    return checkpoint.save(one.folder, one.network, complete)


def _set_bias(network: Classifier, bias: list[float]) -> None:
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor(bias))


def _spread(dataset: Dataset, part: str, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of a part, as many of each class, evenly spread over its files; always the same."""
    rows, labels = dataset.rows(part), dataset.labels
    of_class = [rows[labels[rows] == label] for label in range(len(CLASSES))]
    half = count // len(CLASSES)
    return np.concatenate(
        [each[np.linspace(0, len(each) - 1, min(half, len(each))).astype(int)] for each in of_class]
    )


def _crosscheck(trained: list[Trained], part: str, folder: Path) -> dict[str, Check]:
    checks = {}
    for one in trained:
        pixels = torch.from_numpy(one.dataset.pixels[_spread(one.dataset, part, CHECKED)])
        # On the CPU: a GPU's reduced precision is not what is checked here.
        check = crosscheck.crosscheck(one.network.cpu(), pixels)
        some = slice(None, None, CHECKED // SHOWN)
        title = f"{one.name}: map of PNEUMONIA by hook and by Captum, {part}"
        shown = Check(
            check.hook[some], check.captum[some], check.map_difference, check.logit_difference
        )
        path = folder / f"crosscheck-{one.name}.png"
        figures.crosschecked(pixels[some].numpy(), shown, title, path)
        checks[one.name] = check
    return checks


def _histories(trained: list[Trained]) -> dict[str, list[Epoch]]:
    """Of the networks that were trained in this run."""
    return {
        one.name: [Epoch(**epoch) for epoch in json.loads((one.folder / HISTORY).read_text())]
        for one in trained
        if (one.folder / HISTORY).is_file()
    }


def _gallery(one: Trained, its_card: Card, found: Judged, part: str, folder: Path) -> Path:
    """Right and wrong answers of both classes, with the map of the predicted class."""
    rows, labels = one.dataset.rows(part), one.dataset.labels
    scores = found.scores(part)
    predicted = (scores >= found.threshold).astype(int)
    chosen: list[int] = []
    for actual in range(len(CLASSES)):
        for guessed in range(len(CLASSES)):
            these = np.flatnonzero((labels[rows] == actual) & (predicted == guessed))
            random = np.random.default_rng([actual, guessed])
            chosen += list(random.permutation(these)[: GALLERY // 4])
    pixels = one.dataset.pixels[rows[chosen]]
    _, maps = explain(one.network, torch.from_numpy(pixels))
    examples = [
        figures.Example(
            f"actual {CLASSES[labels[rows[place]]]}\npredicted {CLASSES[predicted[place]]}\n"
            f"P(PNEUMONIA) = {scores[place]:.3f}",
            pixels[number],
            maps[number, predicted[place]].numpy(),
            bool(labels[rows[place]] == predicted[place]),
        )
        for number, place in enumerate(chosen)
    ]
    title = f"{one.name}, {part}: image, map of the predicted class, overlay as served"
    path = folder / f"gallery-{one.name}.png"
    return figures.gallery(examples, its_card["map"]["scale"], title, path)


def _augmented(dataset: Dataset, folder: Path) -> Path:
    rows = _spread(dataset, split.FIT, 16)
    generator = torch.Generator().manual_seed(0)
    changes = augment.draw(len(rows), augment.Strength(), generator)
    changed = augment.apply(torch.from_numpy(dataset.pixels[rows]), changes)
    pixels = changed.round().byte().numpy()
    return figures.augmented(pixels, "augmented training images", folder / "augmented.png")


def _seeds(cards: list[Card]) -> str:
    """The networks' seeds, once where they have the same; and that of the split, if another."""
    each = [str(card["training"]["seed"]) for card in cards]
    said = each[0]
    if len(set(each)) > 1:
        said = ", ".join(
            f"{card['network']} {seed}" for card, seed in zip(cards, each, strict=True)
        )
    parted = str(split_seed(cards[0]))
    return said if {parted} == set(each) else f"{said}; of the split {parted}"


def _about(run: Path, cards: list[Card]) -> dict[str, Any]:
    training = cards[0]["training"]
    return {
        "run": run.resolve().name,
        "data": f"{training['data']['name']} (sha256 {training['data']['sha256'][:12]})",
        "preset": training["preset"],
        "seed": _seeds(cards),
        "start": ", ".join(f"{card['network']} {card['training']['init']}" for card in cards),
        "image size": ", ".join(f"{c['network']} {c['input']['size']} px" for c in cards),
        "map": ", ".join(f"{c['network']} {c['map']['rows']}×{c['map']['columns']}" for c in cards),
        "warnings": sorted({warning for card in cards for warning in card["warnings"]}),
    }
