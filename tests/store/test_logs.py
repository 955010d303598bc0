"""Every line of the log names what it is about: requests beside each other are told apart."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from api.domain.request_id import request_id, serving
from api.logs import FORM, NamedLines
from tests.support.app import OUR_KEY, Rest


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(NamedLines(FORM))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client of these tests, not the service
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


async def test_every_line_of_requests_at_once_names_its_own(api: Rest, lines: io.StringIO) -> None:
    """Also the lines of what they call, and each line of a traceback."""

    async def fails(*_: object, **__: object) -> None:
        logging.getLogger("deep.down").warning("two\nlines")
        await asyncio.sleep(0.01)
        raise RuntimeError("broken\ninside")

    api.world.jobs.list = fails  # type: ignore[method-assign, assignment]
    client = api.as_key(OUR_KEY)
    paths = ["files", "fine_tuning/jobs", "models/none%0Aforged", "fine_tuning/jobs"] * 5
    replies = await asyncio.gather(*(client.get(path) for path in paths))
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == len(paths) and all(id.startswith("req_") for id in ids)
    written = lines.getvalue().splitlines()
    assert {line[: line.index("]") + 1] for line in written} == {f"[{id}]" for id in ids}
    failed = [reply.headers["x-request-id"] for reply in replies if reply.status_code == 500]
    assert len(failed) == 10
    for id in failed:
        own = "\n".join(line for line in written if line.startswith(f"[{id}]"))
        assert "deep.down two" in own and "Traceback" in own and "RuntimeError: broken" in own
        assert "GET /v1/fine_tuning/jobs 500" in own


def test_background_work_names_its_job(lines: io.StringIO) -> None:
    with serving("ftjob-1"):
        logging.getLogger("tuningfork.validation").info("found")
    logging.getLogger("tuningfork.validation").info("between")
    first, second = lines.getvalue().splitlines()
    assert first.startswith("[ftjob-1] ") and second.startswith("[-] ")
    assert request_id.get() == "-"
