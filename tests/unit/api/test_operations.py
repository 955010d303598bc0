"""The OpenAPI document: OpenAI's names for OpenAI's operations, and what every operation tells."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.rest import app as rest
from api.rest.context import Services

ORGANIZATION = "/v1/organization"
PROJECT = f"{ORGANIZATION}/projects/{{}}"
OPENAI = {
    "get /v1/files": "listFiles",
    "post /v1/files": "createFile",
    "get /v1/files/{}": "retrieveFile",
    "delete /v1/files/{}": "deleteFile",
    "get /v1/files/{}/content": "downloadFile",
    "post /v1/uploads": "createUpload",
    "post /v1/uploads/{}/parts": "addUploadPart",
    "post /v1/uploads/{}/complete": "completeUpload",
    "post /v1/uploads/{}/cancel": "cancelUpload",
    "get /v1/fine_tuning/jobs": "listPaginatedFineTuningJobs",
    "post /v1/fine_tuning/jobs": "createFineTuningJob",
    "get /v1/fine_tuning/jobs/{}": "retrieveFineTuningJob",
    "post /v1/fine_tuning/jobs/{}/cancel": "cancelFineTuningJob",
    "post /v1/fine_tuning/jobs/{}/pause": "pauseFineTuningJob",
    "post /v1/fine_tuning/jobs/{}/resume": "resumeFineTuningJob",
    "get /v1/fine_tuning/jobs/{}/events": "listFineTuningEvents",
    "get /v1/fine_tuning/jobs/{}/checkpoints": "listFineTuningJobCheckpoints",
    "get /v1/fine_tuning/checkpoints/{}/permissions": "listFineTuningCheckpointPermissions",
    "post /v1/fine_tuning/checkpoints/{}/permissions": "createFineTuningCheckpointPermission",
    "delete /v1/fine_tuning/checkpoints/{}/permissions/{}": "deleteFineTuningCheckpointPermission",
    "post /v1/fine_tuning/alpha/graders/run": "runGrader",
    "post /v1/fine_tuning/alpha/graders/validate": "validateGrader",
    "get /v1/models": "listModels",
    "get /v1/models/{}": "retrieveModel",
    "delete /v1/models/{}": "deleteModel",
    "get /v1/chat/completions": "listChatCompletions",
    "post /v1/chat/completions": "createChatCompletion",
    "get /v1/chat/completions/{}": "getChatCompletion",
    "post /v1/chat/completions/{}": "updateChatCompletion",
    "delete /v1/chat/completions/{}": "deleteChatCompletion",
    "get /v1/chat/completions/{}/messages": "getChatCompletionMessages",
    "post /v1/completions": "createCompletion",
    "post /v1/embeddings": "createEmbedding",
    "post /v1/moderations": "createModeration",
    "post /v1/responses": "createResponse",
    "post /v1/responses/compact": "Compactconversation",
    "post /v1/responses/input_tokens": "Getinputtokencounts",
    "get /v1/responses/{}": "getResponse",
    "delete /v1/responses/{}": "deleteResponse",
    "post /v1/responses/{}/cancel": "cancelResponse",
    "get /v1/responses/{}/input_items": "listInputItems",
    "get /v1/batches": "listBatches",
    "post /v1/batches": "createBatch",
    "get /v1/batches/{}": "retrieveBatch",
    "post /v1/batches/{}/cancel": "cancelBatch",
    "get /v1/evals": "listEvals",
    "post /v1/evals": "createEval",
    "get /v1/evals/{}": "getEval",
    "post /v1/evals/{}": "updateEval",
    "delete /v1/evals/{}": "deleteEval",
    "get /v1/evals/{}/runs": "getEvalRuns",
    "post /v1/evals/{}/runs": "createEvalRun",
    "get /v1/evals/{}/runs/{}": "getEvalRun",
    "post /v1/evals/{}/runs/{}": "cancelEvalRun",
    "delete /v1/evals/{}/runs/{}": "deleteEvalRun",
    "get /v1/evals/{}/runs/{}/output_items": "getEvalRunOutputItems",
    "get /v1/evals/{}/runs/{}/output_items/{}": "getEvalRunOutputItem",
    f"get {ORGANIZATION}/projects": "list-projects",
    f"post {ORGANIZATION}/projects": "create-project",
    f"get {PROJECT}": "retrieve-project",
    f"post {PROJECT}": "modify-project",
    f"post {PROJECT}/archive": "archive-project",
    f"get {PROJECT}/api_keys": "list-project-api-keys",
    f"get {PROJECT}/api_keys/{{}}": "retrieve-project-api-key",
    f"delete {PROJECT}/api_keys/{{}}": "delete-project-api-key",
    f"get {PROJECT}/rate_limits": "list-project-rate-limits",
    f"post {PROJECT}/rate_limits/{{}}": "update-project-rate-limits",
    f"get {PROJECT}/service_accounts": "list-project-service-accounts",
    f"post {PROJECT}/service_accounts": "create-project-service-account",
    f"get {PROJECT}/service_accounts/{{}}": "retrieve-project-service-account",
    f"post {PROJECT}/service_accounts/{{}}": "update-project-service-account",
    f"delete {PROJECT}/service_accounts/{{}}": "delete-project-service-account",
    f"post {PROJECT}/service_accounts/{{}}/api_keys": "CreateanAPIkeyforaserviceaccount",
    f"get {PROJECT}/spend_alerts": "list-project-spend-alerts",
    f"post {PROJECT}/spend_alerts": "create-project-spend-alert",
    f"get {PROJECT}/spend_alerts/{{}}": "retrieve-project-spend-alert",
    f"post {PROJECT}/spend_alerts/{{}}": "update-project-spend-alert",
    f"delete {PROJECT}/spend_alerts/{{}}": "delete-project-spend-alert",
    f"get {PROJECT}/spend_limit": "Getprojectspendlimit",
    f"post {PROJECT}/spend_limit": "Updateprojectspendlimit",
    f"delete {PROJECT}/spend_limit": "Deleteprojectspendlimit",
    f"get {PROJECT}/users": "list-project-users",
    f"post {PROJECT}/users": "create-project-user",
    f"get {PROJECT}/users/{{}}": "retrieve-project-user",
    f"post {PROJECT}/users/{{}}": "modify-project-user",
    f"delete {PROJECT}/users/{{}}": "delete-project-user",
    f"get {PROJECT}/model_permissions": "retrieve-project-model-permissions",
    f"post {PROJECT}/model_permissions": "update-project-model-permissions",
    f"delete {PROJECT}/model_permissions": "delete-project-model-permissions",
    f"get {PROJECT}/data_retention": "retrieve-project-data-retention",
    f"post {PROJECT}/data_retention": "update-project-data-retention",
    f"get {ORGANIZATION}/users": "list-users",
    f"get {ORGANIZATION}/users/{{}}": "retrieve-user",
    f"post {ORGANIZATION}/users/{{}}": "modify-user",
    f"delete {ORGANIZATION}/users/{{}}": "delete-user",
    f"get {ORGANIZATION}/invites": "list-invites",
    f"post {ORGANIZATION}/invites": "inviteUser",
    f"get {ORGANIZATION}/invites/{{}}": "retrieve-invite",
    f"delete {ORGANIZATION}/invites/{{}}": "delete-invite",
    f"get {ORGANIZATION}/admin_api_keys": "admin-api-keys-list",
    f"post {ORGANIZATION}/admin_api_keys": "admin-api-keys-create",
    f"get {ORGANIZATION}/admin_api_keys/{{}}": "admin-api-keys-get",
    f"delete {ORGANIZATION}/admin_api_keys/{{}}": "admin-api-keys-delete",
    f"get {ORGANIZATION}/audit_logs": "list-audit-logs",
    f"get {ORGANIZATION}/costs": "usage-costs",
    f"get {ORGANIZATION}/usage/completions": "usage-completions",
    f"get {ORGANIZATION}/usage/embeddings": "usage-embeddings",
    f"get {ORGANIZATION}/usage/moderations": "usage-moderations",
}
OUR_NAME = re.compile(r"[a-z]+(?:[A-Z][a-zA-Z]+|(?:-[a-z]+)+)")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    services = cast(Services, SimpleNamespace(max_file_bytes=1))
    return rest.build(services, new_request_id=lambda: "req_1").openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {re.sub('{[^}]+}', '{}', path)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


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
    bare = ("cancel", "archive", "pause", "resume")
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
