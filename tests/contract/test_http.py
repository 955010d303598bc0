"""What an SDK does not show: envelopes of odd requests, headers, limits, and doors that stay shut."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.service import Service
from tuningfork_pb.v1 import engine_pb2, engine_pb2_grpc


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {service.api_key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", headers=headers, timeout=30) as client:
        yield client


def error_of(reply: httpx.Response) -> dict[str, object]:
    body: dict[str, dict[str, object]] = reply.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("PUT", "/v1/files", 405),
        ("GET", "/v1/load_lora_adapter", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/files?order=up", 400),
        ("GET", "/v1/fine_tuning/jobs?limit=many", 400),
        ("GET", "/internal/adapters/mv-0123456789", 401),
    ],
)
def test_odd_requests_answer_the_envelope(http: httpx.Client, method: str, path: str, status: int) -> None:
    reply = http.request(method, path)
    assert reply.status_code == status
    assert error_of(reply)["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"null"])
@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/completions"])
def test_a_body_that_is_no_json_object(http: httpx.Client, path: str, body: bytes) -> None:
    reply = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    error_of(reply)


def test_nulls_are_as_good_as_absent(http: httpx.Client) -> None:
    body = {"model": "nope", "training_file": "file-x", "suffix": None, "seed": None, "metadata": None}
    body |= {
        "validation_file": None,
        "method": None,
        "hyperparameters": None,
        "integrations": None,
        "lora": None,
    }
    reply = http.post("/v1/fine_tuning/jobs", json=body)
    assert error_of(reply)["code"] == "model_not_found"


def test_a_wrong_method_is_told_the_right_ones(http: httpx.Client) -> None:
    assert http.put("/v1/files").headers["allow"] == "GET, POST"
    assert http.put("/v1/models/ft:a/b:c").headers["allow"] == "DELETE, GET"


def test_every_answer_carries_its_id(http: httpx.Client) -> None:
    replies = [http.get("/v1/models"), http.get("/v1/nothing"), http.get("/healthz")]
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 3 and all(one.startswith("req_") for one in ids)
    assert all(int(reply.headers["openai-processing-ms"]) >= 0 for reply in replies)


def test_a_form_without_its_parts(http: httpx.Client) -> None:
    assert error_of(http.post("/v1/files", data={"purpose": "fine-tune"}))["param"] == "file"
    no_purpose = http.post("/v1/files", files={"file": ("a.jsonl", b"{}")})
    assert error_of(no_purpose)["param"] == "purpose"
    assert error_of(http.post("/v1/files", json={}))["param"] == "file"
    broken = http.post("/v1/files", content=b"--x", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400
    error_of(broken)


def test_too_much_is_refused_before_it_is_sent(service: Service) -> None:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413
    assert "longer than" in json.loads(reply.read())["error"]["message"]
    connection.close()


def test_too_much_is_refused_while_it_is_read(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1024 * 1024

    reply = http.post("/v1/chat/completions", content=endless())
    assert reply.status_code == 413
    error_of(reply)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer \u00e9".encode("latin-1")])
def test_no_key_no_answer(service: Service, header: str | bytes) -> None:
    for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/models/x/adapter"):
        reply = httpx.get(f"http://127.0.0.1:{service.port}{path}", headers={"Authorization": header})
        assert reply.status_code == 401
        error_of(reply)


def test_it_says_whether_it_is_ready(http: httpx.Client) -> None:
    reply = http.get("/readyz")
    parts = {"database": True, "object_store": True, "serving": True, "engine": True}
    assert (reply.status_code, reply.json()) == (200, {"ready": True, "draining": False, "components": parts})
    assert http.get("/healthz").json() == {"alive": True}


def test_the_schema_is_served(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    paths = set(schema["paths"])
    assert {"/v1/files", "/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/models"} <= paths
    assert not [path for path in paths if path.startswith("/internal")]
    json.dumps(schema)


def test_the_engines_door_needs_the_workers_token(service: Service) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        engines = engine_pb2_grpc.EngineServiceStub(channel)
        request = engine_pb2.AcquireLeaseRequest(engine_id="e", base_models=["x"])
        for metadata in ((), (("authorization", f"Bearer {service.api_key}"),)):
            with pytest.raises(grpc.RpcError) as refused:
                engines.AcquireLease(request, metadata=metadata, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel)
        reply = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
