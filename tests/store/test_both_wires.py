"""One table of cases, each sent over REST and over gRPC: the same object, or the same error."""

import base64
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from api.rpc.convert import fields_of
from tests.store.test_leases import DATA, checkpoint, leased, queued, report, upload
from tests.support.app import OUR_KEY
from tests.support.stores import BASE
from tests.support.wires import RpcError, Wires

JOBS, FILES, GRADERS = "fine_tuning/jobs", "files", "fine_tuning/alpha/graders"
GOOD = {"model": BASE, "training_file": "{file}"}
CHECK = {
    "type": "string_check",
    "name": "a",
    "input": "{{sample.output_text}}",
    "reference": "x",
    "operation": "eq",
}
CHAT = {"model": BASE, "messages": [{"role": "user", "content": "hello there"}]}


@dataclass(frozen=True)
class Case:
    """`rest`: method, path and body. `rpc`: the call and its request, the body when None. `pick`: where the object is
    in the reply; "": the reply is the object."""

    rest: tuple[str, str, Any]
    rpc: str
    request: Any = None
    pick: str = ""


def create(**changes: Any) -> Case:
    return Case(("POST", JOBS, GOOD | changes), "JobService/CreateJob", None, "job")


def on_job(verb: str, state: str) -> Case:
    rpc = f"JobService/{verb.capitalize()}Job"
    return Case(("POST", f"{JOBS}/{{{state}}}/{verb}", None), rpc, {"job_id": f"{{{state}}}"}, "job")


def chat(**changes: Any) -> Case:
    body = CHAT | changes
    return Case(("POST", "chat/completions", body), "InferenceService/ChatCompletion", {"chat": body})


def grade(**changes: Any) -> Case:
    body = {"grader": CHECK | changes}
    return Case(("POST", f"{GRADERS}/validate", body), "GraderService/ValidateGrader", body)


CASES = {
    "a file": Case(("GET", "files/{file}", None), "FileService/GetFile", {"file_id": "{file}"}, "file"),
    "no file": Case(("GET", "files/file-x", None), "FileService/GetFile", {"file_id": "file-x"}, "file"),
    "files": Case(
        ("GET", "files?purpose=fine-tune", None), "FileService/ListFiles", {"purpose": "fine-tune"}
    ),
    "no files": Case(("GET", "files?limit=0", None), "FileService/ListFiles", {"limit": 0}),
    "files upside down": Case(("GET", "files?order=up", None), "FileService/ListFiles", {"order": "up"}),
    "a file in use goes": Case(
        ("DELETE", "files/{file}", None), "FileService/DeleteFile", {"file_id": "{file}"}
    ),
    "a file goes": Case(("DELETE", "files/{idle}", None), "FileService/DeleteFile", {"file_id": "{idle}"}),
    "a job begins": create(suffix="mine", seed=7, metadata={"a": "b"}, lora={"rank": 4}),
    "a preference job begins": create(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5}}}),
    "a reinforcement job begins": create(
        method={"type": "reinforcement", "reinforcement": {"grader": CHECK}}
    ),
    "a job with every training option begins": create(
        validation_file="{file}",
        lora={"rank": 32, "rslora": True},
        training={
            "schedule": "cosine",
            "warmup_ratio": 0.25,
            "learning_rate_floor": 0.5,
            "max_grad_norm": 0.75,
            "weight_decay": 0.125,
            "early_stopping": {"patience": 2, "min_delta": 0.25},
            "best_checkpoint": True,
        },
    ),
    "a constant rate": create(training={"schedule": "constant", "warmup_ratio": 0.5}),
    "no training option": create(training={}),
    "a smoothed preference job begins": create(method={"type": "dpo"}, dpo={"label_smoothing": 0.25}),
    "a KTO job begins": create(
        method={"type": "dpo"}, dpo={"loss": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5}
    ),
    "a SimPO job begins": create(method={"type": "dpo"}, dpo={"loss": "simpo", "beta": 10, "gamma": 3.5}),
    "an unknown schedule": create(training={"schedule": "magic"}),
    "a floor under a constant rate": create(training={"schedule": "constant", "learning_rate_floor": 0.5}),
    "a floor above the peak": create(training={"learning_rate_floor": 1.5}),
    "too much warm-up": create(training={"warmup_ratio": 1.5}),
    "no gradient left": create(training={"max_grad_norm": 0.0}),
    "negative weight decay": create(training={"weight_decay": -0.5}),
    "early stopping without a validation file": create(training={"early_stopping": {"patience": 2}}),
    "the best checkpoint without a validation file": create(training={"best_checkpoint": True}),
    "no patience": create(validation_file="{file}", training={"early_stopping": {"patience": 0}}),
    "patience unknown": create(validation_file="{file}", training={"early_stopping": {"min_delta": 0.5}}),
    "an unknown loss": create(method={"type": "dpo"}, dpo={"loss": "magic"}),
    "smoothing of another loss": create(method={"type": "dpo"}, dpo={"loss": "ipo", "label_smoothing": 0.25}),
    "a margin of the default loss": create(method={"type": "dpo"}, dpo={"gamma": 0.5}),
    "too much smoothing": create(method={"type": "dpo"}, dpo={"label_smoothing": 0.5}),
    "two betas": create(
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5}}}, dpo={"loss": "simpo", "beta": 10}
    ),
    "a loss of pairs without pairs": create(dpo={"loss": "ipo"}),
    "a loss of pairs for rewards": create(
        method={"type": "reinforcement", "reinforcement": {"grader": CHECK}}, dpo={"loss": "ipo"}
    ),
    "a job with integrations begins": create(
        integrations=[
            {"type": "wandb", "wandb": {"project": "p", "name": "n", "entity": "e", "tags": ["a", "b"]}},
            {"type": "tensorboard", "tensorboard": {}},
            {"type": "wandb", "wandb": {"project": "q"}},
        ]
    ),
    "an integration that is not connected": create(
        integrations=[{"type": "mlflow", "mlflow": {"experiment": "e", "tags": {"a": "b"}}}]
    ),
    "an unknown integration": create(integrations=[{"type": "comet"}]),
    "an integration without its object": create(integrations=[{"type": "wandb"}]),
    "an integration with another's object": create(
        integrations=[{"type": "wandb", "mlflow": {"experiment": "e"}}]
    ),
    "an integration without a project": create(integrations=[{"type": "wandb", "wandb": {"name": "n"}}]),
    "a project with a slash": create(integrations=[{"type": "wandb", "wandb": {"project": "../p"}}]),
    "the same integration twice": create(integrations=[{"type": "tensorboard", "tensorboard": {}}] * 2),
    "too many integrations": create(
        integrations=[{"type": "wandb", "wandb": {"project": f"p{n}"}} for n in range(6)]
    ),
    "a tag of the service's own": create(
        integrations=[{"type": "mlflow", "mlflow": {"experiment": "e", "tags": {"tuningfork.job_id": "x"}}}]
    ),
    "a job with a budget begins": create(
        budget={"amount": 2.5, "trained_tokens": 10_000_000, "device_seconds": 60.5}
    ),
    "a dry run": create(dry_run=True, suffix="mine", budget={"amount": 2.5}),
    "a dry run of pairs on other rows": create(dry_run=True, method={"type": "dpo"}),
    "a dry run of an unknown file": create(dry_run=True, training_file="file-x"),
    "a budget that cannot do": create(dry_run=True, budget={"trained_tokens": 1}),
    "a job over its budget": create(budget={"trained_tokens": 1}),
    "an empty budget": create(budget={}),
    "a budget of nothing": create(budget={"amount": 0.0}),
    "an unknown model": create(model="gpt-9"),
    "an unknown file": create(training_file="file-x"),
    "a seed below 0": create(seed=-1),
    "a long suffix": create(suffix="x" * 65),
    "a suffix of signs": create(suffix="::"),
    "too much metadata": create(metadata={str(n): "x" for n in range(17)}),
    "a rank too high": create(lora={"rank": 65}),
    "an unknown method": create(method={"type": "magic"}),
    "two methods": create(method={"type": "dpo", "supervised": {}}),
    "no epochs": create(method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}),
    "beta too high": create(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}),
    "rewards without a grader": create(method={"type": "reinforcement"}),
    "an unknown grader": create(
        method={"type": "reinforcement", "reinforcement": {"grader": {"type": "magic", "name": "a"}}}
    ),
    "a job": Case(("GET", f"{JOBS}/{{job}}", None), "JobService/GetJob", {"job_id": "{job}"}, "job"),
    "no job": Case(("GET", f"{JOBS}/ftjob-x", None), "JobService/GetJob", {"job_id": "ftjob-x"}, "job"),
    "jobs": Case(("GET", f"{JOBS}?limit=2", None), "JobService/ListJobs", {"limit": 2}),
    "too many jobs": Case(("GET", f"{JOBS}?limit=1001", None), "JobService/ListJobs", {"limit": 1001}),
    "a job ends": on_job("cancel", "job"),
    "an ended job ends": on_job("cancel", "cancelled"),
    "a job pauses": on_job("pause", "queued"),
    "an ended job pauses": on_job("pause", "cancelled"),
    "a paused job goes on": on_job("resume", "paused"),
    "a queued job goes on": on_job("resume", "queued"),
    "events": Case(
        ("GET", f"{JOBS}/{{job}}/events?limit=3", None),
        "JobService/ListJobEvents",
        {"job_id": "{job}", "limit": 3},
    ),
    "events of no job": Case(
        ("GET", f"{JOBS}/ftjob-x/events", None), "JobService/ListJobEvents", {"job_id": "ftjob-x"}
    ),
    "checkpoints": Case(
        ("GET", f"{JOBS}/{{job}}/checkpoints", None),
        "CheckpointService/ListCheckpoints",
        {"job_id": "{job}"},
    ),
    "permissions of no model": Case(
        ("GET", "fine_tuning/checkpoints/ft:x/permissions", None),
        "CheckpointService/ListPermissions",
        {"model": "ft:x"},
    ),
    "permissions for nobody": Case(
        ("POST", "fine_tuning/checkpoints/{model}/permissions", {"project_ids": []}),
        "CheckpointService/CreatePermissions",
        {"model": "{model}", "project_ids": []},
    ),
    "no permission to take back": Case(
        ("DELETE", "fine_tuning/checkpoints/{model}/permissions/cp_x", None),
        "CheckpointService/DeletePermission",
        {"model": "{model}", "permission_id": "cp_x"},
    ),
    "a model": Case(("GET", "models/{model}", None), "ModelService/GetModel", {"model": "{model}"}, "model"),
    "a base": Case(("GET", f"models/{BASE}", None), "ModelService/GetModel", {"model": BASE}, "model"),
    "no model": Case(("GET", "models/ft:x", None), "ModelService/GetModel", {"model": "ft:x"}, "model"),
    "a base goes": Case(("DELETE", f"models/{BASE}", None), "ModelService/DeleteModel", {"model": BASE}),
    "a model goes": Case(
        ("DELETE", "models/{model}", None), "ModelService/DeleteModel", {"model": "{model}"}
    ),
    "a good grader": grade(),
    "a grader without a reference": grade(reference=None),
    "a grader of an unknown operation": grade(operation="near"),
    "a grade": Case(
        ("POST", f"{GRADERS}/run", {"grader": CHECK, "model_sample": "x", "item": {"n": 8}}),
        "GraderService/RunGrader",
    ),
    "an answer": chat(max_completion_tokens=8, temperature=0.5, stop=["no"]),
    "an answer of no model": chat(model="gpt-9"),
    "an answer too hot": chat(temperature=3),
    "too many answers": chat(n=9),
}
VOLATILE = {"execution_time", "created_at", "finished_at", "seed", "object", "first_id", "last_id", "created"}


async def given(wires: Wires) -> list[dict[str, str]]:
    """Objects to act on, a set for each wire."""
    world = wires.rest.world
    sets: list[dict[str, str]] = [{}, {}]
    for names in sets:  # before any other job is queued: engines take the oldest
        names["job"] = (await queued(world)).id
        run = await leased(world)
        await upload(world, run)
        await report(world, run, checkpoint(final=False))
        page = await world.jobs.checkpoints(world.caller, names["job"], after=None, limit=1)
        names["model"] = page.items[0].model_name
        names["file"] = (await world.jobs.retrieve(world.caller, names["job"])).training_file
    for names in sets:
        for state in ("queued", "cancelled", "paused"):
            names[state] = (await queued(world)).id
        await world.jobs.cancel(world.caller, names["cancelled"])
        await world.jobs.pause(world.caller, names["paused"])
        file = await world.files.create(
            world.caller,
            filename="a.jsonl",
            purpose="fine-tune",
            source=io.BytesIO(DATA),
            size_bytes=len(DATA),
        )
        names["idle"] = file.id
    return sets


def filled(value: Any, names: Mapping[str, str]) -> Any:
    text = json.dumps(value)
    for name, word in names.items():
        text = text.replace("{" + name + "}", word)
    return json.loads(text)


def normal(value: Any) -> Any:
    """Without what is empty or differs by the moment; ids and numbers by their kind."""
    if isinstance(value, dict):
        pairs = ((name, normal(each)) for name, each in value.items() if name not in VOLATILE)
        return {name: each for name, each in pairs if each not in (None, "", 0, False, [], {}, "auto")}
    if isinstance(value, list):
        return [normal(each) for each in value]
    if isinstance(value, str):
        value = re.sub(r"(ftjob|file|ftevent|mv|cp|ftckpt|org)[-_][A-Za-z0-9]{6,}", r"\1-ID", value)
        value = re.sub(r":[A-Za-z0-9]{8}(?=:|$)", ":ID", value)
        return re.sub(r"\b(\d+)\.0\b", r"\1", value)  # a double's way to write 3
    return float(value) if isinstance(value, int | float) else value


async def over_rest(wires: Wires, case: Case, names: Mapping[str, str]) -> Any:
    method, path, body = filled(list(case.rest), names)
    reply = await wires.rest.as_key(OUR_KEY).request(method, path, **({} if body is None else {"json": body}))
    found = reply.json()
    if reply.is_success:
        for each in (found, *(found.get("data") or ())):
            each.pop("hyperparameters", None)  # OpenAI's older copy of what is in `method`
        return normal(found)
    error = found["error"]
    return (error["type"], error["code"], error["param"], error["message"].replace("'", ""))


async def over_grpc(wires: Wires, case: Case, names: Mapping[str, str]) -> Any:
    asked = case.rest[2] if case.request is None else case.request
    try:
        reply = await wires.call(case.rpc, filled(asked, names), key=OUR_KEY)
    except RpcError as error:
        detail = error.detail
        assert error.code is not grpc.StatusCode.UNKNOWN and error.trailing["x-request-id"].startswith("req_")
        code = detail.code if detail.HasField("code") else None
        param = detail.param if detail.HasField("param") else None
        return (detail.type, code, param, detail.message.replace("'", ""))
    return normal(fields_of(getattr(reply, case.pick) if case.pick else reply))


@pytest.mark.parametrize("name", CASES)
async def test_both_wires_say_the_same(wires: Wires, name: str) -> None:
    case = CASES[name]
    one, other = await given(wires)
    by_rest = await over_rest(wires, case, one)
    by_grpc = await over_grpc(wires, case, other)
    if isinstance(by_rest, tuple):  # each names the objects it was about
        by_rest, by_grpc = normal(list(by_rest)), normal(list(by_grpc))
    assert by_grpc == by_rest


@pytest.mark.parametrize(
    ("filename", "purpose", "content", "expiry"),
    [
        ("a.jsonl", "fine-tune", DATA, None),
        ("a.jsonl", "fine-tune", DATA, 3600),
        ("a.jsonl", "fine-tune", DATA, 1),
        ("a.jsonl", "magic", DATA, None),
        ("a.txt", "fine-tune", DATA, None),
        ("a.jsonl", "fine-tune", b"", None),
        ("a.jsonl", "fine-tune", b'{"a": 1}\nno', None),
        ("a.bin", "user_data", bytes(range(256)) * 9000, None),
    ],
)
async def test_uploads_over_both_wires(
    wires: Wires, filename: str, purpose: str, content: bytes, expiry: int | None
) -> None:
    form = {"purpose": purpose}
    if expiry is not None:
        form |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expiry)}
    client = wires.rest.as_key(OUR_KEY)
    reply = await client.post("files", data=form, files={"file": (filename, content)})
    described = {"filename": filename, "purpose": purpose}
    described |= {} if expiry is None else {"expires_after_seconds": str(expiry)}
    chunks = [content[start : start + 65536] for start in range(0, len(content), 65536)]
    parts = [{"description": described}, *({"chunk": chunk} for chunk in chunks)]
    try:
        file = (await wires.call("FileService/CreateFile", key=OUR_KEY, parts=encoded(parts))).file
    except RpcError as error:
        assert error.detail.message == reply.json()["error"]["message"]
        assert error.detail.param == (reply.json()["error"]["param"] or "")
        return
    told = reply.json()
    assert normal(fields_of(file) | {"expires_at": 0}) == normal(told | {"expires_at": 0})
    assert bool(file.expires_at) == (expiry is not None)
    pieces = await wires.call("FileService/DownloadFile", {"file_id": file.id}, key=OUR_KEY)
    assert b"".join(piece.chunk for piece in pieces) == content


def encoded(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON's form of bytes is base64."""
    return [
        {"chunk": base64.b64encode(part["chunk"]).decode()} if "chunk" in part else part for part in parts
    ]
