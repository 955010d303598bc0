"""Validation over real stores: a job's files are read from S3, line by line, and the job is queued or fails by line."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from api.domain.cost import Budget
from api.domain.errors import ServiceError
from api.domain.estimates import Checked
from api.domain.jobs import DpoMethod, Job, JobStatus, NewJob
from api.services.file_checks import Key, weight
from api.services.remembered import Remembered
from tests.support.janitor import swept
from tests.support.stores import BASE, World

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
GOOD = json.dumps({"messages": [USER, ANSWER]}).encode()
PAIR = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


async def stored(world: World, data: bytes) -> str:
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="fine-tune", source=io.BytesIO(data), size_bytes=len(data)
    )
    return file.id


async def validated(world: World, data: bytes) -> Job:
    new = NewJob(model=BASE, training_file=await stored(world, data))
    return await ended(world, await world.jobs.create(world.caller, new))


async def ended(world: World, job: Job) -> Job:
    """Its validation, that is."""
    running = asyncio.create_task(world.validation.run())
    try:
        async with asyncio.timeout(30):
            while job.status is JobStatus.VALIDATING_FILES:
                await asyncio.sleep(0.05)
                job = await world.jobs.retrieve(world.caller, job.id)
    finally:
        running.cancel()
    return job


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PAIR, "Example 12 (line 14) is missing key 'messages': give it a list of chat messages."),
        (
            {"messages": [IMAGE, ANSWER]},
            "Example 12 (line 14), message 0 has an image: the base models of this service read text alone. "
            "Remove the image part.",
        ),
        (
            {"messages": [USER, ANSWER | {"weight": 2}]},
            "Example 12 (line 14), message 1 has the weight 2: a weight is 0 or 1.",
        ),
        (
            {"messages": [USER, ANSWER], "tools": [{"type": "function", "function": {}}]},
            "Example 12 (line 14), tool 0 has a function without a name.",
        ),
    ],
)
async def test_a_wrong_row_fails_the_job_by_example_and_line(
    world: World, row: dict[str, object], reason: str
) -> None:
    lines = [GOOD, b"", b" \r", *[GOOD + b"\r"] * 10, json.dumps(row).encode(), GOOD]
    job = await validated(world, b"\n".join(lines))
    assert job.status is JobStatus.FAILED and job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_file_format", "training_file")
    assert job.error.message == (
        f"The job failed due to a file format error in the training file. Invalid file format. {reason}"
    )


async def test_lines_over_many_chunks_are_all_counted(world: World) -> None:
    """3 MB: chunks of S3 end in the middle of lines, some of half a megabyte."""
    long = json.dumps({"messages": [USER, ANSWER | {"content": "чай\n" * 40_000}]}).encode()
    job = await validated(world, b"\n".join([long, GOOD, long, GOOD, GOOD] * 2 + [GOOD]))
    assert job.status is JobStatus.QUEUED, job.error
    assert job.method.hyperparameters.n_epochs == 9  # of 11 examples: about 100 are seen


async def test_a_file_whose_time_comes_during_validation_is_read_and_given_to_no_new_job(
    world: World,
) -> None:
    new = NewJob(model=BASE, training_file=await stored(world, b"\n".join([GOOD] * 12)))
    new = replace(new, validation_file=await stored(world, GOOD))
    job = await world.jobs.create(world.caller, new)
    async with world.database.transaction() as connection:
        await connection.execute("update file set expires_at = now() - interval '1 minute'")
    await swept(world)
    job = await ended(world, job)
    assert job.status is JobStatus.QUEUED, job.error
    for late in (new, replace(new, budget=Budget(trained_tokens=1))):
        for call in (world.jobs.create, world.jobs.dry_run):
            with pytest.raises(ServiceError) as refused:
                await call(world.caller, late)
            assert refused.value.code == "file_not_found"


async def test_a_right_file_is_read_once_for_all_who_ask_the_same_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget is looked at in the request, then the job is validated; and another job names the same file."""
    read: list[str] = []

    def counting(key: str, **how: int | None) -> AsyncIterator[bytes]:
        read.append(key)
        return real(key, **how)

    real = world.blobs.read
    monkeypatch.setattr(world.blobs, "read", counting)
    file_id = await stored(world, b"\n".join([GOOD] * 12))
    new = NewJob(model=BASE, training_file=file_id, budget=Budget(trained_tokens=10**9))
    for one in (new, replace(new, seed=1)):
        job = await ended(world, await world.jobs.create(world.caller, one))
        assert (job.status, job.estimate is not None) == (JobStatus.QUEUED, True)
        assert job.method.hyperparameters.n_epochs == 8
    assert read == [f"files/{file_id}"]
    held_out = await stored(world, GOOD)
    with_few = replace(new, validation_file=held_out)
    assert (await ended(world, await world.jobs.create(world.caller, with_few))).status is JobStatus.QUEUED
    too_few = await ended(world, await world.jobs.create(world.caller, replace(new, training_file=held_out)))
    assert too_few.error is not None and too_few.error.code == "invalid_n_examples"
    assert read == [f"files/{file_id}", f"files/{held_out}"], (
        "one row is enough for the one, not for the other"
    )
    other = await ended(world, await world.jobs.create(world.caller, replace(new, method=DpoMethod())))
    assert other.error is not None and other.error.code == "invalid_file_format"
    assert read[-1] == f"files/{file_id}" and len(read) >= 3, "what it is right for is another question"


def test_what_is_remembered_of_files_is_bounded() -> None:
    remembered = Remembered[Key, Checked](most_bytes=11_000, weigh=weight)
    found = Checked(file_id="f", examples=1, size=4000, sample=[b"x" * 4000])
    for number in range(3):
        remembered.keep((f"file-{number}", "dpo", frozenset()), found)
        assert remembered.of(("file-0", "dpo", frozenset())) is not None
    assert remembered.of(("file-1", "dpo", frozenset())) is None, "the one that was asked for least lately"
    remembered.keep(
        ("file-3", "dpo", frozenset()), Checked(file_id="f", examples=1, size=1, sample=[b"x" * 20_000])
    )
    assert not any(remembered.of((f"file-{number}", "dpo", frozenset())) for number in range(4))
    remembered.keep(("file-0", "dpo", frozenset()), found)
    remembered.keep(("file-0", "dpo", frozenset()), found)
    assert remembered.of(("file-0", "dpo", frozenset())) is found
