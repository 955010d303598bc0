"""The OpenAPI document: OpenAI's names for OpenAI's operations, and what every operation tells."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.rest import app as rest
from api.services.services import Services
from tests.support.openai_operations import OPENAI, PROJECT, operations

OUR_NAME = re.compile(r"[a-z]+(?:[A-Z][a-zA-Z]+|(?:-[a-z]+)+)")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    services = cast(Services, SimpleNamespace(max_file_bytes=1))
    return rest.build(services, new_request_id=lambda: "req_1").openapi()


def test_openais_operations_have_openais_names(document: dict[str, Any]) -> None:
    """A route without `operation_id=` fails here: FastAPI would make a name of its path."""
    found = {route: operation["operationId"] for route, operation in operations(document).items()}
    wrong = {route: (name, OPENAI[route]) for route, name in found.items() if OPENAI.get(route, name) != name}
    assert not wrong, "(ours, OpenAI's)"
    ours = {route: name for route, name in found.items() if route not in OPENAI}
    assert all(OUR_NAME.fullmatch(name) for name in ours.values()), ours
    assert not set(ours.values()) & set(OPENAI.values()), "a name of OpenAI's on another path"
    assert len(set(found.values())) == len(found) >= 80


def test_every_operation_tells_its_key_and_its_errors(document: dict[str, Any]) -> None:
    for route, operation in operations(document).items():
        assert operation["security"], route
        statuses = set(operation["responses"])
        assert {"401", "403", "503"} <= statuses, route
        assert "422" not in statuses, route
        assert ("404" in statuses) >= ("{}" in route), route
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                (content,) = response["content"].values()
                anthropics = route.startswith("post /v1/messages")
                assert content["schema"]["$ref"].endswith("/MessagesErrorReply") is anthropics


def test_every_post_says_what_it_takes(document: dict[str, Any]) -> None:
    bare = ("cancel", "archive", "pause", "resume", "/runs/{}")  # OpenAI cancels a run of an eval by its path
    silent = [
        route
        for route, operation in operations(document).items()
        if route.startswith("post ") and "requestBody" not in operation and not route.endswith(bare)
    ]
    assert silent == []


def test_every_answer_has_a_form(document: dict[str, Any]) -> None:
    """`{}` or a bare object would let anything through."""
    formless = []
    for route, operation in operations(document).items():
        (success,) = [response for status, response in operation["responses"].items() if int(status) < 300]
        for media, content in success["content"].items():
            if media == "application/json" and set(content["schema"]) <= {
                "title",
                "type",
                "additionalProperties",
            }:
                formless.append(route)
    assert formless == []


def test_what_is_made_is_linked_to_what_it_is_for(document: dict[str, Any]) -> None:
    run = operations(document)["post /v1/evals/{}/runs"]["responses"]["201"]["links"]["getEvalRunOutputItems"]
    assert run["parameters"] == {"eval_id": "$request.path.eval_id", "run_id": "$response.body#/id"}
    made = operations(document)["post /v1/files"]["responses"]["200"]["links"]
    assert made["downloadFile"]["parameters"] == {"file_id": "$response.body#/id"}
    account = operations(document)[f"post {PROJECT}/service_accounts"]["responses"]["200"]["links"]
    assert account["delete-project-service-account"]["parameters"] == {
        "project_id": "$request.path.project_id",
        "account_id": "$response.body#/id",
    }


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/([^']+)'", repr(document))) <= set(schemas)
