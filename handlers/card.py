"""The card that travels with the weights from training to the answer, as types.

`card.json` is one JSON object. Its fields determine its type: the card of a network or of an
ensemble (`members`) that is trained, then evaluated, then archived.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers import files
from handlers.card_fields import (
    Calibration,
    Figures,
    Graph,
    HalfPrecision,
    Input,
    Map,
    MapGrid,
    NoveltyRule,
    OperatingPoint,
    Project,
    Reference,
    StoredFile,
    Training,
    TriageRules,
)
from handlers.records import Record, RecordError, decode, encode

CARD = "card.json"
SCHEMA = 1  # of the cards that this code writes; older ones have no number


class CardError(ValueError):
    """A card can't be read; the message names the file and the field."""


# --- cards


@dataclass(frozen=True, kw_only=True)
class ModelCard(Record):
    """The fields of every card, of a network or of an ensemble."""

    network: str
    input: Input
    map: MapGrid
    classes: tuple[str, ...]
    bias: tuple[float, ...]  # mean(map) + bias = logit, by class
    training: Training  # of an ensemble: that of its first network
    warnings: tuple[str, ...]
    project: Project | None = None
    schema: int | None = None  # None: written before cards had a schema


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork(ModelCard):
    """A network that is trained and not yet evaluated."""

    weights_sha256: str | None = None  # None: not yet saved
    half_precision: HalfPrecision | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated(ModelCard):
    """The fields that evaluation adds to the card of a network or of an ensemble."""

    map: Map
    temperature: float
    operating_points: Mapping[str, OperatingPoint]
    default_operating_point: str
    figures: Figures | None = None
    calibration: Calibration | None = None
    ages: tuple[float, float] | None = None  # of the training images, in years; None: unknown
    reference: Reference | None = None
    novelty: NoveltyRule | None = None
    triage: TriageRules | None = None

    @property
    def threshold(self) -> float:
        """The default operating point's threshold on the calibrated P(PNEUMONIA), 0..1."""
        return self.operating_points[self.default_operating_point].threshold


@dataclass(frozen=True, kw_only=True)
class EvaluatedNetwork(Evaluated, TrainedNetwork):
    """A network that was evaluated: it has thresholds and can be archived."""


@dataclass(frozen=True, kw_only=True)
class Member(Record):
    """A network of an ensemble, by the weights it was evaluated with."""

    network: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class EvaluatedEnsemble(Evaluated):
    """Several networks evaluated as one model: the mean of their calibrated logits."""

    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class GraphCard(EvaluatedNetwork):
    """A network with its graph, and the logits that it gives the archive's golden image."""

    graph: Graph
    golden_logits: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ArchivedNetwork(GraphCard):
    """The card in an archive of one network."""

    version: str
    golden: StoredFile | None = None

    @property
    def networks(self) -> tuple[GraphCard, ...]:
        """The cards of the archive's networks: this one."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class ArchivedEnsemble(Evaluated):
    """The card in an archive of several networks; each member has a graph of its own."""

    members: tuple[GraphCard, ...]
    version: str
    golden: StoredFile | None = None

    @property
    def networks(self) -> tuple[GraphCard, ...]:
        """The cards of the archive's networks."""
        return self.members


Archived = ArchivedNetwork | ArchivedEnsemble
NetworkCard = TrainedNetwork | EvaluatedNetwork | ArchivedNetwork
Card = NetworkCard | EvaluatedEnsemble | ArchivedEnsemble


# --- to a file and back


def parse(document: object) -> Card:
    """The card that a JSON object describes.

    Raises:
        CardError: a field is missing or mistyped, with its path; or the schema is newer.
    """
    try:
        card = decode(_kind(document), document)
    except RecordError as error:
        raise CardError(str(error)) from error
    if card.schema is not None and card.schema > SCHEMA:
        raise CardError(f"schema: {card.schema} is newer than {SCHEMA}: update this program")
    if isinstance(card, Evaluated) and card.default_operating_point not in card.operating_points:
        raise CardError(
            f"default_operating_point: {card.default_operating_point} is none of the "
            f"operating_points {', '.join(card.operating_points)}"
        )
    return card


def _kind(document: object) -> type[Card]:
    present = document.keys() if isinstance(document, Mapping) else set()
    if "members" in present:
        return ArchivedEnsemble if "version" in present else EvaluatedEnsemble
    if "version" in present:
        return ArchivedNetwork
    return EvaluatedNetwork if "temperature" in present else TrainedNetwork


def loads(text: str | bytes) -> Card:
    """The card in the text of a `card.json`.

    Raises:
        CardError: it is not JSON, or not a card.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CardError(f"it is not JSON: {error}") from error
    return parse(document)


def read(path: Path) -> Card:
    """The card in a file.

    Raises:
        CardError: it is not a card; the message names the file and the field.
        OSError: it can't be read.
    """
    try:
        return loads(path.read_bytes())
    except CardError as error:
        raise CardError(f"{path}: {error}") from error


def document(card: Card) -> dict[str, Any]:
    """The JSON object of a card."""
    return encode(card)


def write(path: Path, card: Card) -> None:
    """Write a card to a file, which is replaced whole or not at all.

    Raises:
        OSError: the folder is read-only, or the disk is full.
    """
    files.write_text(path, json.dumps(document(card), indent=2) + "\n")
