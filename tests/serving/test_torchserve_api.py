"""The inference and explanation API, as TorchServe's own test/postman collections ask it."""

import re
from typing import Any

import pytest
import requests

from tests.serving.conftest import Served, picture
from tests.serving.test_server import RAW, post, probability

NO_MODEL, NO_VERSION = "ModelNotFoundException", "ModelVersionNotFoundException"


def options(address: str, road: str = "/") -> dict[str, Any]:
    response = requests.options(f"{address}{road}", timeout=10)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    description: dict[str, Any] = response.json()
    assert description["openapi"] == "3.0.1"
    return description


def operations(description: dict[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, methods in description["paths"].items()
        for method in methods
    }


def test_the_server_is_well(served: Served) -> None:
    response = requests.get(f"{served.place.inference}/ping", timeout=10)
    assert response.status_code == 200
    assert response.json() == {"status": "Healthy"}


def test_inference_describes_itself(served: Served) -> None:
    assert operations(options(served.place.inference)) >= {
        "OPTIONS /",
        "GET /ping",
        "POST /predictions/{model_name}",
        "POST /predictions/{model_name}/{model_version}",
    }


def test_management_describes_itself(served: Served) -> None:
    assert operations(options(served.place.management)) >= {
        "OPTIONS /",
        "GET /models",
        "POST /models",
        "GET /models/{model_name}",
        "PUT /models/{model_name}",
        "DELETE /models/{model_name}",
        "GET /models/{model_name}/{model_version}",
        "PUT /models/{model_name}/{model_version}",
        "DELETE /models/{model_name}/{model_version}",
        "PUT /models/{model_name}/{model_version}/set-default",
    }


def test_a_model_describes_itself(served: Served) -> None:
    place = served.place
    of_management = operations(options(place.management, "/models/resnet50"))
    assert of_management < operations(options(place.management))
    assert "GET /models/{model_name}" in of_management
    # TorchServe's own slip: the road is /predictions/resnet50.
    described = options(place.inference, "/predictions/resnet50")
    assert "POST /prediction/resnet50" in operations(described)
    assert post(served, "prediction/resnet50", picture(9), headers=RAW).status_code == 404


@pytest.mark.parametrize(
    "road",
    [
        "predictions/resnet50",
        "predictions/resnet50/1.0",
        "v1/models/resnet50:predict",
        "v2/models/resnet50/infer",
    ],
)
def test_a_prediction(served: Served, road: str) -> None:
    response = post(served, road, picture(200), headers=RAW)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("resnet50", "1.0")
    assert answer["probability"]["PNEUMONIA"] == pytest.approx(probability(200))


@pytest.mark.parametrize("road", ["explanations/resnet50", "explanations/resnet50/1.0"])
def test_an_explanation(served: Served, road: str) -> None:
    before = latency(served)
    response = post(served, road, picture(200), headers=RAW)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert answer["probability"]["PNEUMONIA"] == pytest.approx(probability(200))
    assert [heatmap["class"] for heatmap in answer["heatmaps"]] == ["NORMAL", "PNEUMONIA"]
    assert [len(heatmap["map"]) for heatmap in answer["heatmaps"]] == [4, 4]
    assert latency(served) > before


def latency(served: Served) -> float:
    """Microseconds in all, by TorchServe's own count, for resnet50."""
    page = requests.get(served.place.metrics, timeout=10).text
    sample = r'^ts_inference_latency_microseconds\{model_name="resnet50".*\} (\S+)$'
    return sum(float(value) for value in re.findall(sample, page, re.MULTILINE))


@pytest.mark.parametrize(
    ("method", "road", "kind"),
    [
        ("POST", "predictions/vgg", NO_MODEL),
        ("POST", "predictions/resnet50/0.0", NO_VERSION),
        ("POST", "explanations/vgg", NO_MODEL),
        ("POST", "explanations/resnet50/0.0", NO_VERSION),
        ("OPTIONS", "predictions/vgg", NO_MODEL),
        ("POST", "predictions", "ResourceNotFoundException"),
        ("GET", "models", "ResourceNotFoundException"),
    ],
)
def test_what_is_not_there(served: Served, method: str, road: str, kind: str) -> None:
    url = f"{served.place.inference}/{road}"
    response = requests.request(method, url, data=picture(200), headers=RAW, timeout=10)
    assert response.status_code == 404
    error = response.json()
    assert (error["code"], error["type"]) == (404, kind)
    assert error["message"]
