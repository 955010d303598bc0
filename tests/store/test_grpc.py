"""The tenants' gRPC: its doors, streams, deadlines, keys and certificates. What it answers is in test_both_wires."""

import asyncio
import base64
import datetime
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from tuningfork.v1 import checkpoints_pb2, files_pb2, jobs_pb2, models_pb2, models_pb2_grpc

from api.forms.files import FileObject
from api.forms.jobs import CheckpointObject, EventObject, JobObject
from api.forms.models import ModelObject
from api.rpc import calls, server
from deploy.embedded.ports import free_port
from tests.store.test_both_wires import given
from tests.store.test_leases import PREPARED, leased, queued, report, step
from tests.support.app import OUR_KEY, THEIR_KEY
from tests.support.stores import BASE
from tests.support.wires import METHODS, TOKEN, RpcError, Wires

UNSHARED = {"object", "status_details", "hyperparameters"}


def test_every_call_has_a_scope() -> None:
    named = {service.name: {method.name for method in service.methods} for service in calls.services()}
    assert {name: set(scopes) for name, scopes in calls.SCOPES.items()} == named


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (FileObject, files_pb2.File),
        (JobObject, jobs_pb2.Job),
        (EventObject, jobs_pb2.JobEvent),
        (CheckpointObject, checkpoints_pb2.Checkpoint),
        (ModelObject, models_pb2.Model),
    ],
)
def test_messages_have_every_field_of_their_objects(shown: Any, message: Any) -> None:
    assert set(shown.model_fields) - UNSHARED == set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("key", ["", "sk-tf-wrong"])
async def test_no_call_without_a_key(wires: Wires, name: str, key: str) -> None:
    with pytest.raises(RpcError) as refused:
        await wires.call(name, key=key)
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.detail.type == "invalid_request_error"
    assert refused.value.trailing["x-request-id"].startswith("req_")


async def test_another_tenant_finds_nothing_by_any_call(wires: Wires) -> None:
    """Every call whose request names an object, with the ids of ours."""
    names, _ = await given(wires)
    ids = {"file_id": names["file"], "job_id": names["job"], "model": names["model"], "permission_id": "cp_x"}
    tried = 0
    for name, method in METHODS.items():
        request = about(method.input_type, ids)
        if request is None:
            continue
        with pytest.raises(RpcError) as refused:
            await wires.call(name, request, key=THEIR_KEY)
        assert refused.value.code is grpc.StatusCode.NOT_FOUND, name
        assert names["model"] not in refused.value.detail.message or "model" in request
        tried += 1
    assert tried == 15
    with pytest.raises(RpcError) as refused:
        await wires.call(
            "JobService/CreateJob", {"model": BASE, "training_file": names["file"]}, key=THEIR_KEY
        )
    assert refused.value.detail.code == "file_not_found"
    chat = {"model": names["model"], "messages": [{"role": "user", "content": "x"}]}
    for name in ("InferenceService/ChatCompletion", "InferenceService/StreamChatCompletion"):
        with pytest.raises(RpcError) as refused:
            await wires.call(name, {"chat": chat}, key=THEIR_KEY)
        assert refused.value.detail.code == "model_not_found"
    for name in ("FileService/ListFiles", "JobService/ListJobs"):
        assert list((await wires.call(name, key=THEIR_KEY)).data) == []
    models = (await wires.call("ModelService/ListModels", key=THEIR_KEY)).data
    assert [model.id for model in models] == [BASE]


def about(message: Descriptor, ids: dict[str, str]) -> dict[str, Any] | None:
    """A request that names one of ours, or None for one that names nothing."""
    found: dict[str, Any] = {name: ids[name] for name in message.fields_by_name if name in ids}
    if message.name in ("CreateJobRequest", "Chat") or not found:
        return None
    return found | ({"project_ids": ["proj_x"]} if "project_ids" in message.fields_by_name else {})


async def test_a_key_without_the_scope_is_refused(wires: Wires) -> None:
    ours = wires.rest.as_key(OUR_KEY)
    project = (await ours.post("organization/projects", json={"name": "p"})).json()
    path = f"organization/projects/{project['id']}/service_accounts"
    account = (await ours.post(path, json={"name": "reader", "role": "reader"})).json()
    key = account["api_key"]["value"]
    assert list((await wires.call("JobService/ListJobs", key=key)).data) == []
    with pytest.raises(RpcError) as refused:
        await wires.call("JobService/CreateJob", {"model": BASE, "training_file": "f"}, key=key)
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.detail.code == "insufficient_permissions"


async def test_an_answer_comes_piece_by_piece(wires: Wires) -> None:
    chat = {"model": BASE, "messages": [{"role": "user", "content": "one two three"}]}
    pieces = await wires.call("InferenceService/StreamChatCompletion", {"chat": chat}, key=OUR_KEY)
    assert [p.choices[0].delta.content for p in pieces if p.choices] == ["one", "two", "three"]
    assert {piece.model for piece in pieces} == {BASE}
    assert pieces[-1].usage.total_tokens == 5


async def test_watching_tells_each_event_once_and_ends_with_the_job(wires: Wires) -> None:
    world = wires.rest.world
    await queued(world)
    run = await leased(world)
    watching = asyncio.create_task(
        wires.call("JobService/WatchJob", {"job_id": run.job_id}, key=OUR_KEY, timeout=30)
    )
    for number in range(3):
        await asyncio.sleep(0.3)
        await report(world, run, *([PREPARED] if not number else []), step(number + 1), first=number * 2 + 1)
    await world.jobs.cancel(world.caller, run.job_id)
    told = [each.event for each in await watching]
    page = await world.jobs.events(world.caller, run.job_id, after=None, limit=100)
    assert [event.id for event in told] == [event.id for event in reversed(page.items)]
    assert told[-1].message == "Job cancelled"
    metrics = [event for event in told if event.type == "metrics"]
    assert metrics[0].data["train_loss"] == 1.0
    request = {"job_id": run.job_id, "after_event_id": told[3].id}
    rest = await wires.call("JobService/WatchJob", request, key=OUR_KEY)
    assert [each.event.id for each in rest] == [event.id for event in told[4:]]
    with pytest.raises(RpcError) as refused:
        await wires.call("JobService/WatchJob", request | {"after_event_id": "ftevent-x"}, key=OUR_KEY)
    assert refused.value.detail.param == "after_event_id"


async def test_a_deadline_ends_a_watch(wires: Wires) -> None:
    job = await queued(wires.rest.world)
    with pytest.raises(RpcError) as ended:
        await wires.call("JobService/WatchJob", {"job_id": job.id}, key=OUR_KEY, timeout=0.8)
    assert ended.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([{"chunk": "aGVsbG8="}], "description first"),
        ([{"description": {"filename": "a.txt", "purpose": "user_data"}}] * 2, "chunks alone"),
        ([{}], "description first"),
    ],
)
async def test_an_upload_out_of_order_is_refused(
    wires: Wires, parts: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(RpcError) as refused:
        await wires.call("FileService/CreateFile", key=OUR_KEY, parts=parts)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT and words in refused.value.detail.message


async def test_an_upload_too_long_or_broken_off_stores_nothing(wires: Wires) -> None:
    description = {"description": {"filename": "a.bin", "purpose": "user_data"}}
    chunk = {"chunk": base64.b64encode(bytes(1024 * 1024)).decode()}
    with pytest.raises(RpcError) as refused:
        await wires.call("FileService/CreateFile", key=OUR_KEY, parts=[description, *[chunk] * 11])
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    call = wires.channel.stream_unary(
        "/tuningfork.v1.FileService/CreateFile",
        request_serializer=files_pb2.CreateFileRequest.SerializeToString,
        response_deserializer=files_pb2.CreateFileResponse.FromString,
    )(metadata=(("authorization", f"Bearer {OUR_KEY}"),))
    described = files_pb2.FileDescription(filename="a.bin", purpose="user_data")
    await call.write(files_pb2.CreateFileRequest(description=described))
    await call.write(files_pb2.CreateFileRequest(chunk=b"half"))
    call.cancel()
    await asyncio.sleep(0.3)
    assert list((await wires.call("FileService/ListFiles", key=OUR_KEY)).data) == []


async def test_one_idempotency_key_makes_one_job(wires: Wires) -> None:
    job = await queued(wires.rest.world)
    request = {"model": BASE, "training_file": job.training_file}
    once = (("idempotency-key", "k1"),)
    made = await asyncio.gather(
        *(wires.call("JobService/CreateJob", request, key=OUR_KEY, metadata=once) for _ in range(8))
    )
    assert len({each.job.id for each in made}) == 1
    with pytest.raises(RpcError) as refused:
        await wires.call("JobService/CreateJob", request | {"seed": 1}, key=OUR_KEY, metadata=once)
    assert refused.value.detail.code == "idempotency_key_in_use"
    reply = await wires.rest.as_key(OUR_KEY).post(
        "fine_tuning/jobs", json=request, headers={"Idempotency-Key": "k1"}
    )
    assert reply.status_code == 400


async def test_an_error_can_be_read_as_a_client_would(wires: Wires) -> None:
    def ask() -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{wires.port}") as channel:
            stub = models_pb2_grpc.ModelServiceStub(channel)
            metadata = (("authorization", f"Bearer {OUR_KEY}"),)
            with pytest.raises(grpc.RpcError) as refused:
                stub.GetModel(models_pb2.GetModelRequest(model="ft:x"), metadata=metadata, timeout=10)
            return rpc_status.from_call(refused.value)

    status = await asyncio.to_thread(ask)
    assert status.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert status.details[0].type_url.endswith("tuningfork.v1.ErrorDetail")


async def test_every_service_is_healthy_and_describes_itself(wires: Wires) -> None:
    def look() -> tuple[set[str], list[int]]:
        with grpc.insecure_channel(f"127.0.0.1:{wires.port}") as channel:
            known = set(ProtoReflectionDescriptorDatabase(channel).get_services())
            health = health_pb2_grpc.HealthStub(channel)
            names = ["", *(name for name in known if name.startswith("tuningfork"))]
            asked = [health_pb2.HealthCheckRequest(service=name) for name in names]
            return known, [health.Check(request, timeout=5).status for request in asked]

    known, states = await asyncio.to_thread(look)
    assert {service.full_name for service in calls.services()} <= known
    assert set(states) == {health_pb2.HealthCheckResponse.SERVING} and len(states) == 8


async def test_the_engines_door_stays_shut_for_tenants(wires: Wires) -> None:
    call = wires.channel.unary_unary("/tuningfork_pb.v1.EngineService/Heartbeat")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", metadata=(("authorization", f"Bearer {OUR_KEY}"),), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


class Authority:
    """A certificate authority of this test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self.signed(self.name, self.key, authority=True)
        self.path = self.write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def write(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def signed(self, name: x509.Name, key: Any, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self.signed(subject, key, authority=False)
        pem = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return (
            self.write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self.write(f"{name}.key", key.private_bytes(serialization.Encoding.PEM, *pem)),
        )


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls(wires: Wires, tmp_path: Path, mutual: bool) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    port = free_port()
    running = await server.build(
        leases=wires.rest.world.leases,
        services=wires.services,
        new_request_id=lambda: "req_x",
        worker_token=TOKEN,
        address=f"localhost:{port}",
        tls=server.Tls(certificate=certificate, key=key, client_ca=authority.path if mutual else None),
    )
    await running.grpc.start()
    own, own_key = authority.issue("client")
    shown = {"private_key": own_key.read_bytes(), "certificate_chain": own.read_bytes()} if mutual else {}
    trusted = grpc.ssl_channel_credentials(authority.path.read_bytes(), **shown)
    bare = grpc.ssl_channel_credentials(authority.path.read_bytes())
    try:
        assert await models_over(f"localhost:{port}", trusted) == [BASE]
        if mutual:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await models_over(f"localhost:{port}", bare)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await running.grpc.stop(0)


async def models_over(address: str, credentials: Any) -> list[str]:
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        metadata = (("authorization", f"Bearer {OUR_KEY}"),)
        reply = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=5)
        return [model.id for model in reply.data]


def test_the_documentation_names_every_call() -> None:
    text = (Path(__file__).parents[2] / "proto/README.md").read_text()
    assert [name for name in METHODS if not re.search(rf"`{name.split('/')[1]}`", text)] == []
