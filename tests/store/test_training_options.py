"""Training options from the request to what the engine is handed, over real stores."""

import asyncio
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.domain.errors import ServiceError
from api.domain.jobs import NewJob
from api.forms.jobs import CreateJobBody
from engine.contract.spec import Dpo, EarlyStopping, LoraOptions, RunSpec, TrainingOptions
from tests.store.test_continue import tuned
from tests.store.test_leases import DATA, lease, queued
from tests.support.app import OUR_KEY, Rest
from tests.support.stores import BASE, World

PAIR = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}
PAIRS = "\n".join([json.dumps(PAIR)] * 12).encode()
PREFERENCES = {"method": {"type": "dpo"}}
DEFAULTS = {
    "schedule": "linear",
    "warmup_ratio": None,
    "learning_rate_floor": 0.1,
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "early_stopping": None,
    "best_checkpoint": False,
}
EVERY = {
    "schedule": "cosine",
    "warmup_ratio": 0.25,
    "learning_rate_floor": 0.0,
    "max_grad_norm": 0.5,
    "weight_decay": 0.01,
    "early_stopping": {"patience": 2, "min_delta": 0.001},
    "best_checkpoint": True,
}


async def uploaded(world: World, data: bytes) -> str:
    source = io.BytesIO(data)
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="fine-tune", source=source, size_bytes=len(data)
    )
    return file.id


async def asked(api: Rest, **changes: Any) -> dict[str, Any]:
    """The job as it was told back, twice."""
    file = await uploaded(api.world, PAIRS if changes.get("method") else DATA)
    body = {"model": BASE, "training_file": file, **changes}
    if body.get("validation_file"):
        body["validation_file"] = file
    client = api.as_key(OUR_KEY)
    reply = await client.post("fine_tuning/jobs", json=body)
    assert reply.status_code == 200, reply.text
    job: dict[str, Any] = reply.json()
    again = (await client.get(f"fine_tuning/jobs/{job['id']}")).json()
    assert [again.get(name) for name in ("lora", "training", "dpo")] == [
        job.get(name) for name in ("lora", "training", "dpo")
    ]
    return job


async def handed(world: World) -> RunSpec:
    """What an engine gets of the only job, once its files are read."""
    validating = asyncio.create_task(world.validation.run())
    try:
        found = await lease(world, wait=20)
    finally:
        validating.cancel()
    assert found is not None
    return found.spec


async def test_without_options_everything_is_as_it_was(api: Rest) -> None:
    job = await asked(api)
    assert job["training"] == DEFAULTS and "dpo" not in job and job["lora"]["rslora"] is False
    run = await handed(api.world)
    assert run.training == TrainingOptions() and run.lora == LoraOptions()


async def test_every_option_reaches_the_engine(api: Rest) -> None:
    job = await asked(api, validation_file=True, training=EVERY, lora={"rank": 64, "rslora": True})
    assert job["training"] == EVERY
    run = await handed(api.world)
    assert run.training == TrainingOptions(
        schedule="cosine",
        warmup_ratio=0.25,
        floor=0.0,
        max_grad_norm=0.5,
        weight_decay=0.01,
        early_stopping=EarlyStopping(patience=2, min_delta=0.001),
        best_checkpoint=True,
    )
    assert run.lora == LoraOptions(rank=64, rslora=True) and run.lora.scale == 32 / 8


async def test_a_constant_rate_has_no_floor(api: Rest) -> None:
    job = await asked(api, training={"schedule": "constant"})
    assert job["training"] == DEFAULTS | {"schedule": "constant", "learning_rate_floor": None}


@pytest.mark.parametrize(
    ("options", "shown", "expected"),
    [
        (None, {"loss": "sigmoid", "label_smoothing": 0.0}, {"beta": 0.1}),
        ({"label_smoothing": 0.2}, {"loss": "sigmoid", "label_smoothing": 0.2}, {"label_smoothing": 0.2}),
        ({"loss": "ipo", "beta": 0.5}, {"loss": "ipo"}, {"beta": 0.5}),
        ({"loss": "orpo"}, {"loss": "orpo"}, {"beta": 0.1}),
        ({"loss": "simpo"}, {"loss": "simpo", "gamma": 1.0}, {"beta": 2.0, "gamma": 1.0}),
        (
            {"loss": "simpo", "beta": 10, "gamma": 3},
            {"loss": "simpo", "gamma": 3.0},
            {"beta": 10, "gamma": 3},
        ),
        (
            {"loss": "kto", "undesirable_weight": 0.5},
            {"loss": "kto", "desirable_weight": 1.0, "undesirable_weight": 0.5},
            {"undesirable_weight": 0.5, "batch_size": 8},
        ),
    ],
)
async def test_a_loss_of_pairs_reaches_the_engine(
    api: Rest, options: dict[str, Any] | None, shown: dict[str, Any], expected: dict[str, Any]
) -> None:
    job = await asked(api, **PREFERENCES, dpo=options)
    assert job["dpo"] == shown
    method = (await handed(api.world)).method
    resolved = {"n_epochs": 8, "batch_size": 1, "learning_rate_multiplier": 0.02, "beta": 0.1}
    assert method == Dpo(**resolved | {"loss": shown["loss"]} | expected)
    told = (await api.as_key(OUR_KEY).get(f"fine_tuning/jobs/{job['id']}")).json()
    assert told["method"]["dpo"]["hyperparameters"]["beta"] == method.beta
    assert told["dpo"] == shown


async def test_a_job_of_the_last_release_has_the_defaults(world: World) -> None:
    job = await queued(world)
    async with world.database.transaction() as connection:
        found = await connection.execute(
            b"update job set training = null, dpo = null where id = %s returning lora", (job.id,)
        )
        row = await found.fetchone()
    assert row is not None and "rslora" not in str(row), "which the last release could not read"
    assert (await world.jobs.retrieve(world.caller, job.id)).training == TrainingOptions()
    run = await lease(world)
    assert run is not None and run.spec.training == TrainingOptions()


async def test_a_tuned_models_scale_is_kept(world: World) -> None:
    """rsLoRA belongs to the shape: with another scale the adapter would be another model."""
    name, source = await tuned(world)
    async with world.database.transaction() as connection:
        await connection.execute(
            b"""update job set lora = lora || '{"rslora": true}' where id = %s""", (source.id,)
        )
    further = NewJob(model=name, training_file=source.training_file)
    job = await world.jobs.create(world.caller, further)
    assert job.lora == replace(source.lora, rslora=True)
    other = replace(further, lora=source.lora)
    with pytest.raises(ServiceError, match="target_modules and rslora"):
        await world.jobs.create(world.caller, other)


BODIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "the default": ("TrainingBody", {}, True),
    "a cosine": ("TrainingBody", {"schedule": "cosine", "learning_rate_floor": 0.5}, True),
    "a floor": ("TrainingBody", {"learning_rate_floor": 0.5}, True),
    "a floor of nothing": ("TrainingBody", {"schedule": "constant", "learning_rate_floor": None}, True),
    "a floor under a constant": (
        "TrainingBody",
        {"schedule": "constant", "learning_rate_floor": 0.5},
        False,
    ),
    "plain": ("DpoOptionsBody", {}, True),
    "smoothed": ("DpoOptionsBody", {"label_smoothing": 0.1}, True),
    "half": ("DpoOptionsBody", {"label_smoothing": 0.5}, False),
    "a margin": ("DpoOptionsBody", {"loss": "simpo", "gamma": 0.5}, True),
    "a margin of nothing": ("DpoOptionsBody", {"gamma": 0.5}, False),
    "another's smoothing": ("DpoOptionsBody", {"loss": "orpo", "label_smoothing": 0.1}, False),
    "weights": ("DpoOptionsBody", {"loss": "kto", "desirable_weight": 2}, True),
    "weights of nothing": ("DpoOptionsBody", {"loss": "ipo", "desirable_weight": 2}, False),
    "no weight": ("DpoOptionsBody", {"loss": "kto", "desirable_weight": 0}, False),
    "rslora": ("LoraBody", {"rslora": True}, True),
    "rslora in words": ("LoraBody", {"rslora": "yes"}, False),
    "no dora": ("LoraBody", {"dora": False}, True),
    "dora": ("LoraBody", {"dora": True}, False),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_document_tells_what_the_form_takes(name: str) -> None:
    form, body, good = BODIES[name]
    schema = CreateJobBody.model_json_schema()
    described = Draft202012Validator({"$ref": f"#/$defs/{form}", "$defs": schema["$defs"]})
    assert described.is_valid(body) is good
    field = {"TrainingBody": "training", "DpoOptionsBody": "dpo", "LoraBody": "lora"}[form]
    try:
        CreateJobBody.model_validate({"model": "m", "training_file": "f", field: body})
    except ValueError:
        assert not good
    else:
        assert good
