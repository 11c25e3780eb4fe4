"""Schemathesis asks what TorchServe says, in its own description (OPTIONS /), can be asked.

The description is not all right. This is what `amended` changes; every check of schemathesis runs
on the rest:

| of | TorchServe says | it is |
| --- | --- | --- |
| GET /metrics | at both addresses | at an address of its own |
| GET /models/… | an object, with status and metrics | a list of such objects, without these two |
| POST /predictions/… | any bytes, answered by any | those of docs/api.md, answered by JSON |
| | 404, 500, 503 | and what the handler refuses: 400, 413, 415, 422 |
| POST /explanations/… | nothing | as predictions |
| names, versions | any | those that are served, else 404 |

Not asked are other methods than the described, since most roads answer any and a 405 names no
`Allow`; and wrong values of `limit`, which are taken for its default.
"""

import base64
import copy
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from tests.serving.conftest import OPERATING_POINTS, Served, picture

Description = dict[str, Any]
Case = schemathesis.Case[Any]
PICTURES = [picture(0), picture(200), picture(255, format="JPEG")]
SERVED = {"model_name": "resnet50", "model_version": "1.0"}
ERROR = {
    "type": "object",
    "required": ["code", "type", "message"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "integer"},
        "type": {"type": "string"},
        "message": {"type": "string", "minLength": 1},
    },
}
ANSWER = {
    "type": "object",
    "required": ["model", "version", "request_id", "label", "probability", "threshold"],
    "properties": {"label": {"enum": ["NORMAL", "PNEUMONIA"]}},
}
QUESTION = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {"enum": [base64.b64encode(content).decode() for content in PICTURES]},
        "class": {"enum": ["predicted", "NORMAL", "PNEUMONIA"]},
        "heatmap": {"enum": ["overlay", "map", "none"]},
        "operating_point": {"enum": list(OPERATING_POINTS)},
    },
}
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(PICTURES))
always_the_same = settings(max_examples=50, derandomize=True, database=None, deadline=None)

REQUESTS = [
    *(("inference", f"GET {path}") for path in ("/ping", "/api-description")),
    *(("management", f"GET {path}") for path in ("/api-description", "/models")),
    *((server, "OPTIONS /") for server in ("inference", "management")),
]
MODEL_REQUESTS = [
    ("management", "GET /models/{model_name}"),
    ("management", "GET /models/{model_name}/{model_version}"),
    ("inference", "POST /predictions/{model_name}"),
    ("inference", "POST /predictions/{model_name}/{model_version}"),
    ("inference", "POST /explanations/{model_name}"),
    ("inference", "POST /explanations/{model_name}/{model_version}"),
    ("inference", "POST /v1/models/{model_name}:predict"),
    ("inference", "POST /v2/models/{model_name}/infer"),
]
CHANGES = {
    ("management", "POST /models"),
    ("management", "PUT /models/{model_name}"),
    ("management", "DELETE /models/{model_name}"),
    ("management", "PUT /models/{model_name}/{model_version}"),
    ("management", "DELETE /models/{model_name}/{model_version}"),
    ("management", "PUT /models/{model_name}/{model_version}/set-default"),
}


def amended(description: Description) -> Description:
    paths = description["paths"]
    del paths["/metrics"]
    for path in [path for path in paths if path.startswith("/predictions/")]:
        paths[path.replace("predictions", "explanations")] = copy.deepcopy(paths[path])
    for path, operations in paths.items():
        for operation in operations.values():
            amend_parameters(operation["parameters"])
            if "requestBody" in operation:
                amend_question(operation)
        if path.startswith("/models/") and "get" in operations:
            amend_description(operations["get"]["responses"]["200"]["content"])
    return description


def amend_parameters(parameters: list[Description]) -> None:
    for parameter in parameters:
        if parameter["name"] in SERVED:
            parameter["schema"] = {"enum": [SERVED[parameter["name"]]]}


def amend_question(operation: Description) -> None:
    operation["requestBody"]["content"] = {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": QUESTION},
    }
    for code in ("200", "400", "413", "415", "422"):
        schema = ANSWER if code == "200" else ERROR
        content = {"application/json": {"schema": schema}}
        operation["responses"][code] = {"description": code, "content": content}


def amend_description(content: Description) -> None:
    model = content["application/json"]["schema"]
    model["required"] = [key for key in model["required"] if key not in ("status", "metrics")]
    content["application/json"]["schema"] = {"type": "array", "items": model}


@pytest.fixture(scope="module")
def schemas(served: Served) -> dict[str, Any]:
    schemas = {}
    for server in ("inference", "management"):
        address = getattr(served.place, server)
        description = amended(requests.options(address, timeout=10).json())
        schemas[server] = schemathesis.openapi.from_dict(description)
        schemas[server].config.update(base_url=address)
    return schemas


def strategy(schemas: dict[str, Any], server: str, label: str, mode: GenerationMode) -> Any:
    method, path = label.split(" ")
    return schemas[server][path][method].as_strategy(generation_mode=mode)


@pytest.mark.parametrize(("server", "label"), REQUESTS + MODEL_REQUESTS)
def test_conforming_requests_are_answered(schemas: dict[str, Any], server: str, label: str) -> None:
    @always_the_same
    @given(case=strategy(schemas, server, label, GenerationMode.POSITIVE))
    def ask(case: Case) -> None:
        assert case.call_and_validate().status_code == 200

    ask()


@pytest.mark.parametrize(("server", "label"), MODEL_REQUESTS)
def test_invalid_requests_are_refused(schemas: dict[str, Any], server: str, label: str) -> None:
    @always_the_same
    @given(case=strategy(schemas, server, label, GenerationMode.NEGATIVE))
    def ask(case: Case) -> None:
        case.call_and_validate()

    ask()


@pytest.mark.parametrize(
    ("server", "label"), [sent for sent in MODEL_REQUESTS if "POST" in sent[1]]
)
def test_any_bytes_are_answered(schemas: dict[str, Any], server: str, label: str) -> None:
    """TorchServe's own description of the body."""

    @always_the_same
    @given(
        case=strategy(schemas, server, label, GenerationMode.POSITIVE),
        content=st.binary(max_size=100),
    )
    def ask(case: Case, content: bytes) -> None:
        case.body, case.media_type = content, "application/octet-stream"
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


def test_nothing_described_is_left_out(schemas: dict[str, Any]) -> None:
    described = {
        (server, result.ok().label)
        for server, schema in schemas.items()
        for result in schema.get_all_operations()
    }
    assert described == {*REQUESTS, *MODEL_REQUESTS} | CHANGES
