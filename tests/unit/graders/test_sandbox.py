"""Untrusted sources in the real bubblewrap: what they can compute, and what they cannot reach or use up."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.graders.sandbox import bubblewrap, limits
from engine.graders.sandbox.bubblewrap import Case, Sandbox, SourceError
from engine.graders.sandbox.turns import AT_ONCE, SandboxBusyError, Turns

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
    "fills the root": ("def grade(sample, item): open('/x', 'w')", "Read-only"),
    "fills /dev": ("def grade(sample, item): open('/dev/x', 'w')", "Read-only"),
    "fills shared memory": (
        "def grade(sample, item):\n  with open('/dev/shm/x', 'wb') as file:\n    file.write(bytes(65 * 1024**2))",
        "No space left",
    ),
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


SLOW = "import time\ndef grade(sample, item):\n  time.sleep(2)\n  return 1"


@pytest.mark.skipif(os.geteuid() != 0, reason="a control group is root's to make")
async def test_the_processes_of_a_sandbox_are_bounded_together() -> None:
    running = asyncio.create_task(graded(SLOW))
    held: set[str] = set()
    while not running.done():
        for name in ("memory.max", "memory.limit_in_bytes", "pids.max"):
            for file in Path("/sys/fs/cgroup").glob(f"**/{limits.OURS}/*/{name}"):
                if (file.parent / "cgroup.procs").read_text():
                    held.add(f"{name.split('.')[0]} {file.read_text().strip()}")
        await asyncio.sleep(0.1)
    most = limits.GROUP_BYTES // 4096 * 4096
    assert held == {f"memory {most}", f"pids {limits.MAX_PROCESSES}"} and await running == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the kernel exempts root from RLIMIT_NPROC")
async def test_without_a_control_group_few_processes_share_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "limits.py"
    elsewhere.write_text(Path(limits.__file__).read_text().replace("/sys/fs/cgroup", "/proc/nowhere"))
    command = [str(elsewhere) if word == limits.__file__ else word for word in bubblewrap.command()]
    monkeypatch.setattr(bubblewrap, "command", lambda: command)
    forked = "import os\ndef grade(sample, item):\n  n = 0\n  while n < 99:\n    try: child = os.fork()\n"
    forked += "    except OSError: return n\n    n += 1\n    child or __import__('time').sleep(9)"
    assert 1 <= await graded(forked) < limits.ALONE_PROCESSES


async def test_a_sandbox_that_comes_free_too_late_is_not_waited_for() -> None:
    sandbox = Sandbox(turns=Turns(wait_seconds=0.5))
    running = [asyncio.create_task(sandbox.of(f"p{n}").rewards(SLOW, [CASE])) for n in range(AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusyError):
        await sandbox.of("other").rewards(SLOW, [CASE])
    assert await asyncio.gather(*running) == [[1.0]] * AT_ONCE
    assert await sandbox.of("other").rewards("def grade(sample, item): return 2", [CASE]) == [2]


async def test_an_owner_of_many_sources_waits_behind_one_of_few() -> None:
    turns, order = Turns(), list[str]()

    async def one(owner: str) -> None:
        async with turns.turn(owner):
            order.append(owner)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one("many") for _ in range(10)), one("few"))
    assert order.index("few") <= 2 * AT_ONCE and len(order) == 11


async def test_an_endless_source_is_ended() -> None:
    with pytest.raises(SourceError, match="within 1 s"):
        await graded("def grade(sample, item):\n  while True: pass", seconds=1)


async def test_the_sandbox_shows_no_secret_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNINGFORK_API_KEY_PEPPER", "secret")
    source = "import os\ndef grade(sample, item): return sum('TUNING' in k for k in os.environ) + len(os.listdir('/proc'))"
    assert await graded(source) < 100, "its own processes and the kernel's files"
