"""Registering and unregistering: TorchServe's own test/postman collections, with our archives.

They fetch archives from the web; here they come by name from the model store, as allowed_urls has
it. Their server starts no worker that is not asked for, ours one (default_workers_per_model): what
can't start is refused when it is registered, not later, when it is scaled.
"""

import time
from collections.abc import Iterator

import pytest

from tests.serving.conftest import Place
from tests.serving.management import (
    BAD_REQUEST,
    CONFLICT,
    FIRST,
    NO_MODEL,
    Arguments,
    described,
    done,
    manage,
    predict,
    refused,
    register,
    registered,
    serving,
)
from tests.serving.test_server import probability


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("registration")) as place:
        yield place


@pytest.fixture
def zoo(place: Place) -> Iterator[None]:
    with registered(place) as response:
        assert "registered with 0 initial workers" in done(response)
        yield


# Registering


@pytest.mark.parametrize(
    ("query", "code", "kind", "words"),
    [
        ({}, 400, BAD_REQUEST, "Parameter url is required."),
        ({"url": "", "model_name": "zoo"}, 404, NO_MODEL, "empty url"),
        ({"url": "vgg.mar"}, 404, NO_MODEL, "Model not found at: vgg.mar"),
        ({"url": f"../store/{FIRST}"}, 404, NO_MODEL, "Relative path is not allowed"),
        ({"url": FIRST, "runtime": "python4"}, 400, BAD_REQUEST, "Invalid RuntimeType value"),
        # TorchServe's own settings would fetch these and answer 400 where that fails.
        ({"url": "https://example.com/vgg.mar"}, 404, NO_MODEL, "does not match any allowed URL"),
        ({"url": f"file:///{FIRST}"}, 404, NO_MODEL, "does not match any allowed URL"),
        # Theirs says 500 here: the file fetched the first time is in the way.
        ({"url": FIRST}, 409, CONFLICT, "1.0 is already registered for model resnet50"),
    ],
)
def test_a_registration_that_is_refused(
    place: Place, query: Arguments, code: int, kind: str, words: str
) -> None:
    before = described(place, "resnet50/all")
    refused(manage(place, "POST", "/models", **query), code, kind, words)
    models = manage(place, "GET", "/models").json()["models"]
    assert [model["modelName"] for model in models] == ["resnet50"]
    assert described(place, "resnet50/all") == before


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ({"batch_size": "2"}, "batchSize", 2),
        ({"batch_size": "dd"}, "batchSize", 1),
        ({"max_batch_delay": "200"}, "maxBatchDelay", 200),
        ({"max_batch_delay": "junk"}, "maxBatchDelay", 100),
        ({"response_timeout": "0"}, "responseTimeout", 0),
        ({"startup_timeout": "0"}, "startupTimeout", 0),
        ({"initial_workers": "-1"}, "minWorkers", 0),
        ({"handler": "invalidHandler"}, "workers", []),
    ],
)
def test_settings_of_a_registration(
    place: Place, query: Arguments, key: str, value: object
) -> None:
    """A value that is no number is its default."""
    with registered(place, **query) as response:
        assert "registered with 0 initial workers" in done(response)
        assert described(place, "zoo")[0][key] == value


@pytest.mark.parametrize("query", [{"handler": "invalidHandler"}, {"startup_timeout": "0"}])
def test_a_failed_registration_leaves_nothing(place: Place, query: Arguments) -> None:
    message = "Failed to start workers for model zoo version: 1.0"
    refused(register(place, **query), 500, "InternalServerException", message)
    refused(manage(place, "GET", "/models/zoo"), 404, NO_MODEL)


def test_a_registration_waits_for_the_worker(place: Place) -> None:
    with registered(place, initial_workers="1", synchronous="true") as response:
        assert done(response) == 'Model "zoo" Version: 1.0 registered with 1 initial workers'
        answer = predict(place, "zoo")
        assert answer.status_code == 200
        assert answer.json()["probability"]["PNEUMONIA"] == pytest.approx(probability(200))
    refused(predict(place, "zoo"), 404, NO_MODEL)


def test_a_registration_need_not_wait(place: Place) -> None:
    with registered(place, initial_workers="1", synchronous="false") as response:
        assert done(response, 202) == "Processing worker updates..."
        until_ready(place)
        assert predict(place, "zoo").status_code == 200


def until_ready(place: Place) -> None:
    for _ in range(300):
        if [w["status"] for w in described(place, "zoo")[0]["workers"]] == ["READY"]:
            return
        time.sleep(0.1)
    raise AssertionError("no worker within 30 s")


# Unregistering


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"synchronous": "true"},
        {"synchronous": "nan"},
        {"timeout": "true"},
        {"timeout": "true", "synchronous": "-1"},
    ],
)
def test_a_model_is_unregistered(place: Place, query: Arguments) -> None:
    assert done(manage(place, "DELETE", "/models/zoo/", **query)) == 'Model "zoo" unregistered'
    refused(manage(place, "GET", "/models/zoo"), 404, NO_MODEL)
    refused(manage(place, "DELETE", "/models/zoo"), 404, NO_MODEL)
