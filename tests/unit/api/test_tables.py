"""The tables that must be total, and small pure rules."""

import re

import grpc
import pytest

from api.blobs.objects import checked
from api.domain.errors import ErrorKind
from api.domain.ids import model_name
from api.domain.jobs import MAY_FOLLOW, TERMINAL, JobStatus
from api.rest import errors as rest
from api.rpc import errors as rpc
from api.services.jsonl import LineError, lines_from, parse_line
from api.services.keys import masked
from api.services.publishing import result_csv


def test_every_kind_of_error_has_a_status_on_both_wires() -> None:
    assert set(rest.STATUS) == set(ErrorKind)
    assert set(rpc.STATUS) == set(ErrorKind)
    assert rpc.STATUS[ErrorKind.STALE_ATTEMPT][0] is grpc.StatusCode.FAILED_PRECONDITION
    assert {kind: type for kind, (_, type) in rpc.STATUS.items()} == {
        kind: type for kind, (_, type) in rest.STATUS.items()
    }


def test_an_end_is_final() -> None:
    assert set(MAY_FOLLOW) == set(JobStatus)
    assert all(not MAY_FOLLOW[status] for status in TERMINAL)


@pytest.mark.parametrize(
    "key", ["a//b", "a/../b", "/a/b", "a/b/", "a", "a/b c", "a/ü", "a/b\x00", "a/.b", ""]
)
def test_a_key_that_is_not_made_of_ids_never_reaches_the_store(key: str) -> None:
    with pytest.raises(ValueError):
        checked(key)


def test_a_suffix_cannot_break_a_name() -> None:
    name = model_name("base", "personal", "a:b c/d", "12345678")
    assert name == "ft:base:personal:a-b-c-d:12345678"
    assert model_name("base", "personal", None, "12345678") == "ft:base:personal::12345678"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not valid JSON"),
        (b'{"a": Infinity}', "not valid JSON"),
        (b"\xff", "UTF-8"),
        (b"[" * 70 + b"]" * 70, "nested deeper than 64"),
        (b"[" * 100_000, "nested"),
        (b'"' + b"x" * 1_100_000 + b'"', "1 MiB"),
    ],
)
def test_lines_are_bounded(line: bytes, reason: str) -> None:
    with pytest.raises(LineError) as found:
        parse_line(line)
    assert reason in found.value.reason


async def test_lines_of_chunks() -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for chunk in (b"a", b"b\nc", b"\n\nd"):
            yield chunk

    assert [line async for lines in lines_from(chunks()) for line in lines] == [b"ab", b"c", b"", b"d"]


def test_a_key_is_never_shown_whole() -> None:
    key = "sk-tf-0123456789abcdefghij"
    assert "456789" not in masked(key) and re.match("sk-tf-", masked(key))
    assert masked("short") == "…"


def test_the_result_table_keeps_the_later_of_two_attempts() -> None:
    def row(step: int, loss: float, **more: float) -> dict[str, float]:
        return {"step": step, "train_loss": loss, "train_mean_token_accuracy": 0.5, **more}

    table = result_csv([row(1, 9.0), row(2, 8.0), row(1, 3.0), row(2, 2.0, full_valid_loss=1.5)])
    assert table.decode().splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,3.0,0.5,,",
        "2,2.0,0.5,1.5,",
    ]
