"""Validation over real stores: a job's files are read from S3, line by line, and the job is queued or fails by line."""

import asyncio
import io
import json

import pytest

from api.domain.jobs import Job, JobStatus, NewJob
from tests.support.stores import BASE, World

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
GOOD = json.dumps({"messages": [USER, ANSWER]}).encode()
PAIR = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


async def validated(world: World, data: bytes) -> Job:
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="fine-tune", source=io.BytesIO(data), size_bytes=len(data)
    )
    job = await world.jobs.create(world.caller, NewJob(model=BASE, training_file=file.id))
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
