"""The worker as a real process with its real trainer, against a control plane that misbehaves on purpose."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.embedded.ports import free_port
from engine.contract import wire
from engine.contract.spec import NOW_FILE, Supervised
from tests.unit.engine.test_run import ROWS, spec
from tuningfork_pb.v1 import engine_pb2 as pb
from tuningfork_pb.v1 import engine_pb2_grpc

TOKEN = "worker-token-for-tests"
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


class FakeControlPlane(engine_pb2_grpc.EngineServiceServicer):  # type: ignore[misc]
    """Hands out the runs it is given, keeps what is reported, and refuses what a test says."""

    def __init__(self) -> None:
        self.leases: asyncio.Queue[pb.Lease] = asyncio.Queue()
        self.events: list[pb.TrainEvent] = []
        self.reports: list[pb.ReportRequest] = []
        self.objects: dict[str, bytes] = {}
        self.stop: list[pb.RunRef] = []
        self.refuse_reports: list[grpc.StatusCode] = []
        self.refuse_heartbeats = self.store_is_away = False
        self.pause_by_report = False
        self.pause_by_heartbeat: list[pb.RunRef] = []
        self.heartbeats: list[list[pb.RunRef]] = []
        self.held_back: set[str] = set()  # objects whose download waits
        self.changed = asyncio.Event()

    async def serve(self) -> tuple[Any, uvicorn.Server]:
        server = grpc.aio.server()
        engine_pb2_grpc.add_EngineServiceServicer_to_server(self, server)
        self.grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        routes = [Route("/{key:path}", self.store, methods=["GET", "PUT"])]
        self.http_port = free_port()
        config = uvicorn.Config(
            Starlette(routes=routes), port=self.http_port, log_level="critical", lifespan="off"
        )
        http = uvicorn.Server(config)
        self.http = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        return server, http

    async def store(self, request: Request) -> Response:
        key = request.path_params["key"]
        if request.method == "GET":
            while key in self.held_back:
                await asyncio.sleep(0.01)
            return Response(self.objects.get(key, DATA))
        if self.store_is_away:
            return Response(status_code=503)
        self.objects[key] = await request.body()
        return Response()

    def url(self, key: str) -> str:
        return f"http://127.0.0.1:{self.http_port}/{key}"

    def offer_again(self, job_id: str, *, step: int, epochs: int) -> None:
        """A second attempt, from what the first has uploaded at this step."""
        method = Supervised(n_epochs=epochs, batch_size=5, learning_rate_multiplier=1.0)
        run = spec(job_id=job_id, attempt=2, method=method, start_step=step)
        prefix = f"{job_id}/{step}/"
        files = [
            pb.DataFile(
                url=self.url(key),
                size_bytes=len(content),
                name=key.removeprefix(prefix),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            for key, content in self.objects.items()
            if key.startswith(prefix)
        ]
        data = pb.DataFile(url=self.url("data"), size_bytes=len(DATA))
        self.leases.put_nowait(
            pb.Lease(spec=wire.spec_to_pb(run), lease_seconds=3, training_file=data, resume_files=files)
        )

    def offer(self, job_id: str, *, attempt: int = 1, epochs: int = 1) -> None:
        method = Supervised(n_epochs=epochs, batch_size=5, learning_rate_multiplier=1.0)
        run = spec(job_id=job_id, attempt=attempt, method=method)
        file = pb.DataFile(url=self.url("data"), size_bytes=len(DATA))
        self.leases.put_nowait(pb.Lease(spec=wire.spec_to_pb(run), lease_seconds=3, training_file=file))

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Any) -> pb.AcquireLeaseResponse:
        assert dict(context.invocation_metadata())["authorization"] == f"Bearer {TOKEN}"
        assert list(request.base_models) == ["tiny"]
        try:
            return pb.AcquireLeaseResponse(lease=await asyncio.wait_for(self.leases.get(), timeout=1))
        except TimeoutError:
            return pb.AcquireLeaseResponse()

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        if self.refuse_heartbeats:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "as the test says")
        self.heartbeats.append(list(request.runs))
        return pb.HeartbeatResponse(stop=self.stop, pause=self.pause_by_heartbeat)

    async def OpenCheckpoint(
        self, request: pb.OpenCheckpointRequest, context: Any
    ) -> pb.OpenCheckpointResponse:
        prefix = f"{request.run.job_id}/{request.step}"
        return pb.OpenCheckpointResponse(
            urls={file.name: self.url(f"{prefix}/{file.name}") for file in request.files}
        )

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        if self.refuse_reports:
            await context.abort(self.refuse_reports.pop(0), "as the test says")
        self.reports.append(request)
        for event in request.events:
            if event.WhichOneof("kind") == "checkpoint_ready":
                for file in event.checkpoint_ready.files:
                    key = f"{request.run.job_id}/{event.checkpoint_ready.step}/{file.name}"
                    assert len(self.objects[key]) == file.size_bytes, "uploaded whole before it is reported"
            self.events.append(event)
        self.changed.set()
        return pb.ReportResponse(pause=self.pause_by_report)

    async def has_heard(self, run: pb.RunRef) -> None:
        """Until its engine has acted on the answers of now: it asks again only then."""
        seen = len(self.heartbeats)
        async with asyncio.timeout(60):
            while sum(run in runs for runs in self.heartbeats[seen:]) < 2:
                await asyncio.sleep(0.01)

    async def until(self, kind: str, *, seconds: float = 60) -> pb.TrainEvent:
        async with asyncio.timeout(seconds):
            while True:
                found = [event for event in self.events if event.WhichOneof("kind") == kind]
                if found:
                    return found[-1]
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def control() -> AsyncIterator[FakeControlPlane]:
    fake = FakeControlPlane()
    server, http = await fake.serve()
    yield fake
    http.should_exit = http.force_exit = True
    await fake.http
    await server.stop(grace=0)


@asynccontextmanager
async def worker(
    control: FakeControlPlane, model: Path, workspace: Path, **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`more`: of the engine's settings."""
    settings = {
        "CONTROL_PLANE": f"127.0.0.1:{control.grpc_port}",
        "WORKER_TOKEN": TOKEN,
        "ENGINE_ID": "e1",
        "BASE_MODEL": "tiny",
        "MODEL_PATH": str(model),
        "WORKSPACE": str(workspace),
        "MAX_EXAMPLE_TOKENS": "512",
        **more,
    }
    env = os.environ | {f"TUNINGFORK_ENGINE_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "engine.worker", env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), timeout=8) == 0


async def test_a_run_is_reported_in_order_over_an_unreliable_line(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.refuse_reports = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED]
    control.offer("job-1", epochs=2)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("finished")
        assert [event.sequence for event in control.events] == list(range(1, len(control.events) + 1))
        kinds = [event.WhichOneof("kind") for event in control.events]
        assert kinds[0] == "prepared" and kinds[-2:] == ["checkpoint_ready", "finished"]
        assert control.events[-2].checkpoint_ready.final
        assert len(control.objects) == 5, "the adapter's two files of two checkpoints, one training state"
        await until_empty(tmp_path / "work")


@pytest.mark.parametrize("by", ["report", "heartbeat"])
async def test_a_run_is_paused_and_goes_on_with_the_same_bits(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path, by: str
) -> None:
    epochs = 4 if by == "report" else 400
    control.offer("job-1", epochs=epochs)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("step_done")
        if by == "report":
            control.pause_by_report = True
        else:
            control.pause_by_heartbeat = [pb.RunRef(job_id="job-1", attempt=1)]
        step = (await control.until("paused")).paused.step
        await until_empty(tmp_path / "work")
        assert len([key for key in control.objects if key.startswith(f"job-1/{step}/")]) == 3
        control.pause_by_report, control.pause_by_heartbeat, control.events = False, [], []
        if by == "report":
            control.offer_again("job-1", step=step, epochs=epochs)
            await control.until("finished")
            assert control.events[0].prepared.total_steps == 12
            assert [e.sequence for e in control.events] == list(range(1, len(control.events) + 1))
            resumed = control.objects["job-1/12/adapter_model.safetensors"]
            control.events = []
            control.offer("job-2", epochs=epochs)
            await control.until("finished")
            assert control.objects["job-2/12/adapter_model.safetensors"] == resumed


async def test_a_pause_that_is_heard_while_the_data_is_fetched_is_kept(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    run = pb.RunRef(job_id="job-1", attempt=1)
    control.held_back = {"data"}
    control.pause_by_heartbeat = [run]
    control.offer("job-1", epochs=400)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.has_heard(run)
        control.held_back = set()
        step = (await control.until("paused")).paused.step
        await until_empty(tmp_path / "work")
    told = [event.WhichOneof("kind") for event in control.events]
    assert told.count("step_done") == step < 10, "at the first moment that it could"


async def test_a_stale_attempt_is_dropped_and_the_next_run_taken(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.refuse_reports = [grpc.StatusCode.FAILED_PRECONDITION]
    control.offer("job-1", epochs=40)
    control.offer("job-2")
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("finished")
    assert [event.sequence for event in control.events] == list(range(1, len(control.events) + 1))


async def test_a_run_that_the_heartbeat_names_is_stopped(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.offer("job-1", epochs=5000)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("step_done")
        control.stop = [pb.RunRef(job_id="job-1", attempt=1)]
        await until_empty(tmp_path / "work")
        control.stop, control.events = [], []
        control.offer("job-2")
        await control.until("finished")
        await until_empty(tmp_path / "work")
    assert "interrupted" not in {event.WhichOneof("kind") for event in control.events}


async def test_without_time_for_a_checkpoint_sigterm_gives_the_run_back_as_it_was(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.offer("job-1", epochs=5000)
    async with worker(control, tiny_model, tmp_path / "work", DRAIN_SECONDS="0") as process:
        await control.until("step_done")
        process.terminate()
        interrupted = (await control.until("interrupted", seconds=8)).interrupted
    assert interrupted.planned and interrupted.reason == "the engine shuts down"
    assert trainers_on(tiny_model) == []


async def test_a_dead_trainer_is_reported_and_replaced(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.offer("job-1", epochs=5000)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("step_done")
        (trainer,) = trainers_on(tiny_model)
        os.kill(trainer, signal.SIGKILL)
        interrupted = await control.until("interrupted")
        assert not interrupted.interrupted.planned and interrupted.interrupted.trainer_died
        control.offer("job-1", attempt=2, epochs=3)
        await control.until("finished")


async def test_a_dead_trainers_untold_steps_are_named(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    """They wait behind a checkpoint that the object store does not take."""
    control.offer("job-1", epochs=5000)
    control.store_is_away = True
    async with worker(control, tiny_model, tmp_path / "work"):
        told = (await control.until("step_done")).step_done.metrics.step
        now = tmp_path / "work/job-1-a1" / NOW_FILE
        while f"step {told + 10} " not in now.read_text():
            await asyncio.sleep(0.01)
        (trainer,) = trainers_on(tiny_model)
        os.kill(trainer, signal.SIGKILL)
        interrupted = (await control.until("interrupted")).interrupted
        last_told = (await control.until("step_done")).step_done.metrics.step
        assert interrupted.trainer_died and interrupted.step >= told + 9 > last_told


async def test_a_lost_control_plane_ends_the_run_before_its_lease(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    control.offer("job-1", epochs=5000)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("step_done")
        control.refuse_reports = [grpc.StatusCode.UNAVAILABLE] * 1000
        control.refuse_heartbeats = True
        await until_empty(tmp_path / "work")


async def until_empty(workspace: Path, *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not workspace.exists() or list(workspace.iterdir()):
            await asyncio.sleep(0.05)


def trainers_on(model: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"engine.trainer" in words and str(model).encode() in words:
            found.append(int(folder.name))
    return found
