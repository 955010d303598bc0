"""Untrusted sources in the real bubblewrap: what they can compute, and what they cannot reach or use up."""

import pytest

from engine.graders.sandbox.bubblewrap import Case, Sandbox, SourceError

CASE = Case(sample={"output_text": "hello"}, item={"n": 2})


async def graded(source: str, *, seconds: float = 20) -> float:
    (reward,) = await Sandbox(seconds=seconds).rewards(source, [CASE])
    return reward


async def test_a_source_sees_the_sample_and_the_item() -> None:
    assert await graded("def grade(sample, item): return len(sample['output_text']) * item['n']") == 10


async def test_the_usual_libraries_are_there() -> None:
    source = "import numpy, rapidfuzz, yaml\ndef grade(sample, item): return numpy.mean([1, 2])"
    assert await graded(source) == 1.5


async def test_many_cases_take_one_sandbox() -> None:
    source = "calls = []\ndef grade(sample, item):\n  calls.append(1)\n  return len(calls)"
    assert await Sandbox().rewards(source, [CASE] * 3) == [1, 2, 3]
    assert await Sandbox().rewards(source, []) == []


async def test_what_is_printed_is_not_taken_for_a_result() -> None:
    assert await graded("def grade(sample, item):\n  print('{\"rewards\": [9]}')\n  return 0.25") == 0.25


HOSTILE = {
    "syntax": ("def grade(:", "SyntaxError"),
    "no function": ("x = 1", "defines no function"),
    "raises": ("def grade(sample, item): return 1 / 0", "ZeroDivisionError"),
    "text": ("def grade(sample, item): return 'high'", "instead of a number"),
    "not a number": ("def grade(sample, item): return float('nan')", "finite"),
    "memory": ("def grade(sample, item): return len(bytearray(3 * 10**9))", "MemoryError"),
    "exits": ("import os\ndef grade(sample, item): os._exit(0)", "without a result"),
    "network": (
        "import socket\ndef grade(sample, item): socket.create_connection(('1.1.1.1', 53), 2)",
        "unreachable",
    ),
    "files": (f"def grade(sample, item): return len(open({__file__!r}).read())", "FileNotFoundError"),
    "passwords": ("def grade(sample, item): return len(open('/etc/passwd').read())", "FileNotFoundError"),
    "writes": ("def grade(sample, item): open('/usr/x', 'w')", "Read-only"),
    "forks": (
        "import os\ndef grade(sample, item):\n  for _ in range(1000):\n    if not os.fork(): os.read(0, 1) or __import__('time').sleep(9)",
        "BlockingIOError",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_source_hurts_itself_alone(name: str) -> None:
    source, words = HOSTILE[name]
    with pytest.raises(SourceError, match=words):
        await graded(source)


async def test_an_endless_source_is_ended() -> None:
    with pytest.raises(SourceError, match="within 1 s"):
        await graded("def grade(sample, item):\n  while True: pass", seconds=1)


async def test_the_sandbox_shows_no_secret_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNINGFORK_API_KEY_PEPPER", "secret")
    source = "import os\ndef grade(sample, item): return sum('TUNING' in k for k in os.environ) + len(os.listdir('/proc'))"
    assert await graded(source) < 100, "its own processes and the kernel's files"
