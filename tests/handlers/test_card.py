"""Cards as types: read whole or refused with the field's path, and written back as they were."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import card
from handlers.card import CardError
from tests import cards
from tests.handlers.test_card_fields import (
    ENSEMBLE,
    NETWORK,
    Place,
    nodes,
    parsed,
    refused,
    replaced,
)

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "old_cards"  # as earlier versions of the project wrote them
TRAINED, EVALUATED, ARCHIVED = cards.trained(), cards.evaluated(), cards.archived()
SECOND = cards.archived(network="densenet161", temperature=2.0)
KINDS = {
    card.TrainedNetwork: TRAINED,
    card.EvaluatedNetwork: EVALUATED,
    card.ArchivedNetwork: ARCHIVED,
    card.EvaluatedEnsemble: cards.evaluated_ensemble([EVALUATED, SECOND]),
    card.ArchivedEnsemble: cards.ensemble([ARCHIVED, SECOND]),
}


# --- what a document is read as


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_type_follows_from_the_fields(kind: type[card.ModelCard]) -> None:
    read = card.parse(KINDS[kind])
    assert type(read) is kind
    assert read.network == KINDS[kind]["network"]
    assert read.classes == ("NORMAL", "PNEUMONIA")
    assert read.extra == {}


def test_optional_fields_have_defaults() -> None:
    first = {**ARCHIVED, "graph": {"file": "graph.onnx", "sha256": cards.SHA256}}
    del first["golden"], first["golden_logits"]
    read = card.parse(first)
    assert isinstance(read, card.ArchivedNetwork)
    assert (read.graph.engine, read.graph.precision) == ("onnxruntime", "f32")
    assert (read.input.mode, read.map.dilated) == ("L", False)
    assert read.golden is None
    assert read.calibration is None
    assert read.schema is None


def test_properties_of_a_card() -> None:
    read = card.parse(ARCHIVED)
    assert isinstance(read, card.ArchivedNetwork)
    assert read.threshold == 0.5
    assert read.networks == (read,)
    assert read.training.split_by == 0
    ensemble = card.parse(KINDS[card.ArchivedEnsemble])
    assert isinstance(ensemble, card.ArchivedEnsemble)
    assert [network.network for network in ensemble.networks] == ["resnet50", "densenet161"]
    every = card.parse(NETWORK)
    assert (every.training.seed, every.training.split_by) == (2, 0)


def test_null_is_no_value() -> None:
    read = card.parse({**ARCHIVED, "golden": None, "ages": None})
    assert "golden" not in card.document(read)
    figures = {**NETWORK["figures"], "test": None}
    assert card.document(card.parse({**NETWORK, "figures": figures}))["figures"]["test"] is None


# --- what is refused


def test_a_newer_schema_is_refused() -> None:
    assert card.parse({**ARCHIVED, "schema": card.SCHEMA}).schema == card.SCHEMA
    assert refused({**ARCHIVED, "schema": card.SCHEMA + 1}) == (
        "schema: 2 is newer than 1: update this program"
    )


def test_the_default_operating_point_must_exist() -> None:
    assert refused({**ARCHIVED, "default_operating_point": "screening"}) == (
        "default_operating_point: screening is none of the operating_points balanced, rule_in"
    )


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000, b"\xff\xfe", '{"a": 1} {}'])
def test_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(CardError, match=r"^it is not JSON: "):
        card.loads(text)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**ARCHIVED, "bias": [1, "2"]}))
    with pytest.raises(CardError) as refusal:
        card.read(path)
    assert str(refusal.value) == f"{path}: bias.1: a number is needed"
    with pytest.raises(FileNotFoundError):
        card.read(tmp_path / "none.json")


# --- any JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
PATHS = [path for path, _ in nodes(ENSEMBLE) if path]


@given(JSON)
def test_any_json_is_a_card_or_a_refusal(value: object) -> None:
    read = parsed(value)
    assert read is None or card.parse(card.document(read)) == read


@given(st.sampled_from(PATHS), JSON)
def test_any_json_in_a_card_is_a_card_or_a_refusal(path: Place, value: object) -> None:
    read = parsed(replaced(ENSEMBLE, path, value))
    if read is not None:
        again = card.loads(json.dumps(card.document(read)))
        assert card.document(again) == card.document(read)


# --- cards that were written before


def complete(document: Any, written: Any) -> bool:
    """Whether a document is in one that was written of it, where only defaults are added."""
    if isinstance(document, dict):
        return isinstance(written, dict) and all(
            complete(value, written.get(name)) for name, value in document.items()
        )
    if isinstance(document, list):
        return len(document) == len(written) and all(map(complete, document, written))
    return bool(document == written)


PUBLISHED = sorted((ROOT / "weights").glob("*.json"))


@pytest.mark.parametrize(
    "path", [*sorted(OLD.glob("*.json")), *PUBLISHED], ids=lambda path: path.stem
)
def test_cards_of_every_version_are_read_and_keep_all(path: Path) -> None:
    document = json.loads(path.read_text())
    read = card.read(path)
    assert complete(document, card.document(read))
    assert card.parse(card.document(read)) == read


def test_the_card_in_an_archive_of_the_first_version() -> None:
    document = json.loads((OLD / "first-archived.json").read_text())
    read = card.parse(document)
    assert isinstance(read, card.ArchivedNetwork)
    assert (read.golden, read.golden_logits, read.calibration) == (None, None, None)
    assert read.training.extra == {"recipe": document["training"]["recipe"]}
    graph = {**document["graph"], "engine": "onnxruntime", "precision": "f32"}
    assert card.document(read) == {**document, "graph": graph}


@pytest.mark.parametrize("name", ["together", "novelty"])
def test_the_card_in_an_archive_of_both_networks(name: str) -> None:
    read = card.read(OLD / f"{name}-archived-ensemble.json")
    assert isinstance(read, card.ArchivedEnsemble)
    assert [network.network for network in read.networks] == ["resnet50", "densenet161"]
    assert [network.graph.file for network in read.networks] == [
        "resnet50.onnx",
        "densenet161.onnx",
    ]
