"""Describing, scaling, the default: as TorchServe's own test/postman collections ask for them."""

from collections.abc import Iterator

import pytest

from tests.serving.conftest import Place
from tests.serving.management import (
    BAD_REQUEST,
    FIRST,
    NO_MODEL,
    NO_VERSION,
    SECOND,
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("management")) as place:
        yield place


@pytest.fixture
def zoo(place: Place) -> Iterator[None]:
    with registered(place) as response:
        assert "registered with 0 initial workers" in done(response)
        yield


# Describing


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("query", "names", "token"),
    [
        ({}, ["resnet50", "zoo"], None),
        ({"limit": "", "next_page_token": ""}, ["resnet50", "zoo"], None),
        ({"limit": "1"}, ["resnet50"], "1"),
        ({"limit": "1", "next_page_token": "1"}, ["zoo"], "2"),
        ({"limit": "1", "next_page_token": "-1"}, ["resnet50"], "1"),
        ({"limit": "-1"}, ["resnet50", "zoo"], None),
        ({"limit": "one"}, ["resnet50", "zoo"], None),
        ({"next_page_token": "12"}, [], None),
    ],
)
def test_models_are_listed(
    place: Place, query: Arguments, names: list[str], token: str | None
) -> None:
    response = manage(place, "GET", "/models", **query)
    assert response.status_code == 200
    page = response.json()
    assert page["models"] == [{"modelName": name, "modelUrl": FIRST} for name in names]
    assert page.get("nextPageToken") == token


@pytest.mark.parametrize("road", ["resnet50", "resnet50/1.0", "resnet50/all"])
def test_a_model_is_described(place: Place, road: str) -> None:
    (entry,) = described(place, road)
    expected = {
        "modelName": "resnet50",
        "modelVersion": "1.0",
        "modelUrl": FIRST,
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 4,
        "maxBatchDelay": 1,
        "responseTimeout": 60,
        "jobQueueStatus": {"remainingCapacity": 100, "pendingRequests": 0},
    }
    assert {key: entry[key] for key in expected} == expected
    (worker,) = entry["workers"]
    assert worker["status"] == "READY"
    assert worker["gpu"] is False
    assert worker["pid"] > 0
    assert worker["id"]
    assert worker["startTime"]


@pytest.mark.parametrize(
    ("method", "road", "kind"),
    [
        ("GET", "/models/vgg", NO_MODEL),
        ("GET", "/models/vgg/all", NO_MODEL),
        ("GET", "/models/resnet50/0.0", NO_VERSION),
        ("PUT", "/models/vgg", NO_MODEL),
        ("PUT", "/models/resnet50/0.0", NO_VERSION),
        ("PUT", "/models/vgg/1.0/set-default", NO_MODEL),
        ("PUT", "/models/resnet50/0.0/set-default", NO_VERSION),
        ("DELETE", "/models/vgg", NO_MODEL),
        ("DELETE", "/models/resnet50/0.0", NO_VERSION),
        ("GET", "/model", "ResourceNotFoundException"),
    ],
)
def test_missing_models(place: Place, method: str, road: str, kind: str) -> None:
    refused(manage(place, method, road), 404, kind)


@pytest.mark.parametrize(
    ("method", "road"),
    [("DELETE", "/models"), ("PUT", "/models"), ("POST", "/models/resnet50")],
)
def test_a_method_that_is_not_offered(place: Place, method: str, road: str) -> None:
    refused(manage(place, method, road), 405, "MethodNotAllowedException")


# Scaling


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"min_worker": "1"},
        {"min_worker": "1", "max_worker": "1", "synchronous": "false"},
        {"min_worker": "1", "synchronous": "Nan"},
        {"min_worker": "nan", "synchronous": "nan"},
        {"min_worker": "1", "number_gpu": "1"},
        {"number_gpu": "10"},
        {"number_gpu": "-1"},
        {"timeout": "-1"},
        {"timeout": "0"},
    ],
)
def test_scaling_to_the_present_count_changes_nothing(place: Place, query: Arguments) -> None:
    before = described(place, "resnet50")
    answer = manage(place, "PUT", "/models/resnet50", **query)
    assert done(answer, 202) == "Processing worker updates..."
    assert described(place, "resnet50") == before


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("query", "code", "kind"),
    [
        ({"min_worker": "2", "max_worker": "1"}, 400, BAD_REQUEST),
        ({"max_worker": "-1"}, 400, BAD_REQUEST),
        # TorchServe's own slip, which its collection has too.
        ({"min_worker": "-1"}, 500, "IndexOutOfBoundsException"),
    ],
)
def test_a_scaling_that_is_refused(place: Place, query: Arguments, code: int, kind: str) -> None:
    refused(manage(place, "PUT", "/models/zoo", **query), code, kind)


@pytest.mark.parametrize("road", ["/models/zoo", "/models/zoo/1.0"])
@pytest.mark.usefixtures("zoo")
def test_workers_are_scaled_up_and_down(place: Place, road: str) -> None:
    refused(predict(place, "zoo"), 503, "ServiceUnavailableException", "has no worker")
    for count in (1, 0):
        answer = manage(place, "PUT", road, min_worker=str(count), synchronous="true")
        assert f"Workers scaled to {count} for model: zoo" in done(answer)
        workers = described(place, "zoo")[0]["workers"]
        assert [worker["status"] for worker in workers] == ["READY"] * count


def test_a_missing_handler_cannot_be_scaled(place: Place) -> None:
    with registered(place, handler="invalidHandler"):
        answer = manage(place, "PUT", "/models/zoo", min_worker="1", synchronous="true")
        refused(answer, 500, "InternalServerException", "Failed to start workers")


# The default


@pytest.mark.usefixtures("zoo")
def test_the_default_is_set_and_cannot_be_unregistered(place: Place) -> None:
    assert "Version: 2.0 registered" in done(register(place, SECOND, initial_workers="0"))
    versions = [entry["modelVersion"] for entry in described(place, "zoo/all")]
    assert versions == ["1.0", "2.0"]
    assert described(place, "zoo")[0]["modelVersion"] == "1.0"
    answer = manage(place, "PUT", "/models/zoo/2.0/set-default")
    assert done(answer) == 'Default version successfully updated for model "zoo" to "2.0"'
    assert described(place, "zoo")[0]["modelVersion"] == "2.0"
    default = manage(place, "DELETE", "/models/zoo/2.0")
    refused(default, 403, "InvalidModelVersionException", "Cannot remove default version")
    assert done(manage(place, "DELETE", "/models/zoo/1.0")) == 'Model "zoo" unregistered'
    assert [entry["modelVersion"] for entry in described(place, "zoo/all")] == ["2.0"]
