"""May a candidate replace the version that is served? Both answer a replay set over HTTP."""

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
NOTICED = 0.02  # seconds: who takes less is fast, whatever the ratio


class GateError(Exception):
    """A candidate is refused, or can't be judged; the message says why."""


@dataclass(frozen=True)
class Limits:
    """What a candidate may lose; see deploy/gate.toml."""

    auc: float
    sensitivity: float
    specificity: float
    changed_labels: float
    review: float
    latency: float
    errors: int


@dataclass(frozen=True)
class Answer:
    """One image of the replay set, and what a version made of it."""

    file: str
    sick: bool
    probability: float | None  # None where it failed
    label: str | None
    triage: str | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Figures:
    """One version on the replay set."""

    version: str
    auc: float
    sensitivity: float
    specificity: float
    review: float
    latency: float  # seconds, the median
    errors: int


@dataclass(frozen=True)
class Check:
    """One limit: what was found, what is allowed."""

    name: str
    found: float
    allowed: float
    passed: bool


def limits(file: Path) -> Limits:
    """The limits in a TOML file. Raises GateError where one is missing or unknown."""
    try:
        said = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"{file} can't be read: {error}") from error
    names = {field.name for field in fields(Limits)}
    if said.keys() != names:
        wrong = ", ".join(sorted(said.keys() ^ names))
        raise GateError(
            f"{file}: missing or unknown: {wrong}. Known are {', '.join(sorted(names))}"
        )
    return Limits(**said)


def replay(folder: Path, question: Question, versions: Sequence[str]) -> dict[str, list[Answer]]:
    """Every image of a folder's class folders, to each version in turn.

    Raises GateError where a class has no image.
    """
    images = {name: predict.images([folder / name]) for name in CLASSES if (folder / name).is_dir()}
    if any(not images.get(name) for name in CLASSES):
        raise GateError(f"{folder} holds no images below {' and '.join(CLASSES)}")
    found: dict[str, list[Answer]] = {version: [] for version in versions}
    every = [(name, image) for name in CLASSES for image in images[name]]
    for name, image in tqdm(every, unit=" images", desc="replay", disable=None):
        content = image.path.read_bytes()
        for version in versions:
            one = replace(question, version=version)
            found[version].append(_ask(f"{name}/{image.name}", name == CLASSES[1], content, one))
    return found


def _ask(file: str, sick: bool, content: bytes, question: Question) -> Answer:
    started = time.perf_counter()
    try:
        said = predict.ask(content, question)
    except api.ServerError as error:
        taken = time.perf_counter() - started
        return Answer(file, sick, None, None, None, taken, f"{error} ({error.code})")
    taken = time.perf_counter() - started
    triage = said.get("triage", {}).get("decision")
    return Answer(file, sick, said["probability"][CLASSES[1]], said["label"], triage, taken)


def figures(version: str, answers: Sequence[Answer]) -> Figures:
    """Figures of what was answered; errors counted."""
    answered = [one for one in answers if one.probability is not None]
    sick = [one for one in answered if one.sick]
    healthy = [one for one in answered if not one.sick]
    return Figures(
        version=version,
        auc=_auc(
            [one.probability or 0.0 for one in sick], [one.probability or 0.0 for one in healthy]
        ),
        sensitivity=_share([one.label == CLASSES[1] for one in sick]),
        specificity=_share([one.label == CLASSES[0] for one in healthy]),
        review=_share([one.triage == "review" for one in answered]),
        latency=statistics.median(one.seconds for one in answers),
        errors=len(answers) - len(answered),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def _auc(sick: Sequence[float], healthy: Sequence[float]) -> float:
    """The share of pairs in the right order, equal ones half (Hanley and McNeil 1982)."""
    pairs = [(a > b) + (a == b) / 2 for a in sick for b in healthy]
    return sum(pairs) / len(pairs) if pairs else 0.0


def check(
    before: Sequence[Answer], after: Sequence[Answer], versions: Sequence[str], allowed: Limits
) -> tuple[list[Figures], list[Check]]:
    """Figures of the version before and of the candidate, and each limit held against them."""
    old, new = figures(versions[0], before), figures(versions[1], after)
    changed = _share([a.label != b.label for a, b in zip(before, after, strict=True)])
    found = {
        "auc": old.auc - new.auc,
        "sensitivity": old.sensitivity - new.sensitivity,
        "specificity": old.specificity - new.specificity,
        "changed_labels": changed,
        "review": new.review,
        "latency": new.latency / max(old.latency, NOTICED),
        "errors": float(new.errors),
    }
    checks = [
        Check(name, value, float(getattr(allowed, name)), value <= getattr(allowed, name) + 1e-12)
        for name, value in found.items()
    ]
    return [old, new], checks


def write(
    folder: Path, network: str, found: Sequence[Figures], checks: Sequence[Check], outcome: str
) -> Path:
    """The report of a promotion, in Markdown, with its numbers beside it; its path."""
    old, new = found
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
            f"| {one.name} | {one.found:.4g} | {one.allowed:.4g} "
            f"| {'passed' if one.passed else '**missed**'} |"
            for one in checks
        ],
    ]
    files.write_text(path, "\n".join(lines) + "\n")
    numbers = {
        "network": network,
        "outcome": outcome,
        "figures": [asdict(one) for one in found],
        "checks": [asdict(one) for one in checks],
    }
    files.write_text(path.with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    return path
