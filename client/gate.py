"""The gate before a promotion: the served version and a candidate answer a replay set over HTTP."""

import json
import statistics
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tqdm import tqdm

from client import api, predict
from client.predict import Question
from handlers import files

CLASSES = ("NORMAL", "PNEUMONIA")
MIN_LATENCY = 0.02  # seconds: ratios to less than this are noise


class GateError(Exception):
    """A candidate is refused, or can't be evaluated; the message says why."""


@dataclass(frozen=True)
class Limits:
    """What a candidate may lose, by deploy/gate.toml, which explains each."""

    auc: float
    sensitivity: float
    specificity: float
    changed_labels: float
    review: float
    latency: float
    errors: int


@dataclass(frozen=True)
class Answer:
    """A version's answer to one image of the replay set; `error` says why there is none."""

    file: str
    sick: bool  # the actual class is PNEUMONIA
    probability: float | None  # of PNEUMONIA; None: it failed
    label: str | None
    triage: str | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Figures:
    """Figures of one version on the replay set."""

    version: str
    auc: float
    sensitivity: float
    specificity: float
    review: float  # share of answers that triage sends to review
    latency: float  # seconds, the median
    errors: int


@dataclass(frozen=True)
class Check:
    """One limit: the measured value, the allowed one, and whether it passed."""

    name: str
    measured: float
    allowed: float
    passed: bool


def limits(file: Path) -> Limits:
    """The limits in a TOML file.

    Raises:
        GateError: the file can't be read, or a limit is missing or unknown.
    """
    try:
        document = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"{file} can't be read: {error}") from error
    names = {field.name for field in fields(Limits)}
    if document.keys() != names:
        wrong = ", ".join(sorted(document.keys() ^ names))
        raise GateError(
            f"{file}: missing or unknown: {wrong}. Known are {', '.join(sorted(names))}"
        )
    return Limits(**document)


def replay(folder: Path, question: Question, versions: Sequence[str]) -> dict[str, list[Answer]]:
    """The answers of each version to every image in a folder's class folders, in the same order.

    Raises:
        GateError: a class has no image.
    """
    images = {name: predict.images([folder / name]) for name in CLASSES if (folder / name).is_dir()}
    if any(not images.get(name) for name in CLASSES):
        raise GateError(f"{folder} holds no images below {' and '.join(CLASSES)}")
    answers: dict[str, list[Answer]] = {version: [] for version in versions}
    labelled = [(name, image) for name in CLASSES for image in images[name]]
    for name, image in tqdm(labelled, unit=" images", desc="replay", disable=None):
        content = image.path.read_bytes()
        for version in versions:
            answer = _ask(
                f"{name}/{image.name}",
                name == CLASSES[1],
                content,
                replace(question, version=version),
            )
            answers[version].append(answer)
    return answers


def _ask(file: str, sick: bool, content: bytes, question: Question) -> Answer:
    started = time.perf_counter()
    try:
        document = predict.ask(content, question)
    except api.ServerError as error:
        seconds = time.perf_counter() - started
        return Answer(file, sick, None, None, None, seconds, f"{error} ({error.code})")
    seconds = time.perf_counter() - started
    triage = document.get("triage", {}).get("decision")
    return Answer(
        file, sick, document["probability"][CLASSES[1]], document["label"], triage, seconds
    )


def figures(version: str, answers: Sequence[Answer]) -> Figures:
    """AUC, sensitivity, specificity, share of `review`, median seconds and errors of a version.

    Of its answers to the images of a replay set (labelled images that both versions answer).
    """
    sick = [answer for answer in answers if answer.sick and answer.probability is not None]
    healthy = [answer for answer in answers if not answer.sick and answer.probability is not None]
    answered = [*sick, *healthy]
    return Figures(
        version=version,
        auc=_auc(_probabilities(sick), _probabilities(healthy)),
        sensitivity=_share([answer.label == CLASSES[1] for answer in sick]),
        specificity=_share([answer.label == CLASSES[0] for answer in healthy]),
        review=_share([answer.triage == "review" for answer in answered]),
        latency=statistics.median(answer.seconds for answer in answers),
        errors=len(answers) - len(answered),
    )


def _probabilities(answers: Sequence[Answer]) -> list[float]:
    return [answer.probability for answer in answers if answer.probability is not None]


def _share(flags: Sequence[bool]) -> float:
    """The share of true ones, 0 of none."""
    return sum(flags) / len(flags) if flags else 0.0


def _auc(sick: Sequence[float], healthy: Sequence[float]) -> float:
    """The share of pairs in the right order, ties counted half (Hanley and McNeil 1982)."""
    pairs = [(a > b) + (a == b) / 2 for a in sick for b in healthy]
    return sum(pairs) / len(pairs) if pairs else 0.0


def check(
    before: Sequence[Answer], after: Sequence[Answer], versions: Sequence[str], allowed: Limits
) -> tuple[list[Figures], list[Check]]:
    """Figures of the served version and of the candidate, and the candidate's check by each limit.

    `before` and `after` are their answers to the same images in the same order.
    """
    old, new = figures(versions[0], before), figures(versions[1], after)
    changed = _share([a.label != b.label for a, b in zip(before, after, strict=True)])
    measured = {
        "auc": old.auc - new.auc,
        "sensitivity": old.sensitivity - new.sensitivity,
        "specificity": old.specificity - new.specificity,
        "changed_labels": changed,
        "review": new.review,
        "latency": new.latency / max(old.latency, MIN_LATENCY),
        "errors": float(new.errors),
    }
    limits = {name: float(limit) for name, limit in asdict(allowed).items()}
    checks = [
        Check(name, value, limits[name], value <= limits[name] + 1e-12)
        for name, value in measured.items()
    ]
    return [old, new], checks


def write(
    folder: Path, network: str, results: Sequence[Figures], checks: Sequence[Check], outcome: str
) -> Path:
    """Write the report of a promotion, Markdown and JSON; the path of the Markdown.

    `results` are the figures of the served version and of the candidate.
    """
    old, new = results
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"{network}-{new.version}-{stamp}.md"
    keys = [field.name for field in fields(Figures) if field.name != "version"]
    lines = [
        f"# {network}: {old.version} → {new.version}\n",
        f"{outcome}\n",
        f"| | {old.version} | {new.version} |\n| --- | --- | --- |",
        *[f"| {key} | {getattr(old, key):.4g} | {getattr(new, key):.4g} |" for key in keys],
        "\n| limit | found | allowed | |\n| --- | --- | --- | --- |",
        *[
            f"| {check.name} | {check.measured:.4g} | {check.allowed:.4g} "
            f"| {'passed' if check.passed else '**missed**'} |"
            for check in checks
        ],
    ]
    files.write_text(path, "\n".join(lines) + "\n")
    numbers = {
        "network": network,
        "outcome": outcome,
        "figures": [asdict(figures) for figures in results],
        "checks": [
            {
                "name": check.name,
                "found": check.measured,
                "allowed": check.allowed,
                "passed": check.passed,
            }
            for check in checks
        ],
    }
    files.write_text(path.with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    return path
