"""What the gateway adds to chat completions: the same requests to the service and to its vLLM, in turns, in one run.

The client, the service and vLLM share this machine's cores, so what the gateway computes is taken from vLLM: on a CPU
the ratio of the throughputs is as hard as it gets. Both sides are asked over kept connections by the same client.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from examples.demo import BASE_MODEL, HOME, client_from, service

CHAT: Final = "/v1/chat/completions"
PROMPT: Final = "Tell a long story about a kettle."


@dataclass(frozen=True, kw_only=True)
class Side:
    name: str
    http: httpx.AsyncClient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=150, help="of each side, one after another")
    parser.add_argument("--streams", type=int, default=64, help="at the same time")
    parser.add_argument("--tokens", type=int, default=48, help="of each stream")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the service ends with us
    with service():
        asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    ours = client_from(HOME / "client.env")
    url, key = vllm_of(HOME)
    async with (
        httpx.AsyncClient(
            base_url=str(ours.base_url).removesuffix("/v1/"),
            headers={"Authorization": f"Bearer {ours.api_key}"},
            timeout=300,
            limits=limits,
        ) as through,
        httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300, limits=limits
        ) as straight,
    ):
        sides = (Side(name="vLLM directly", http=straight), Side(name="the gateway", http=through))
        await latency(sides, requests=options.requests)
        await throughput(
            sides, streams=options.streams, tokens=options.tokens, turns=options.turns, pid=api_of(HOME)
        )


def vllm_of(home: Path) -> tuple[str, str]:
    """URL and key of the home's vLLM, as its process was told them."""
    _, told = process_of(home, "TUNINGFORK_SERVING_ADAPTER_DIR")
    return f"http://127.0.0.1:{told['TUNINGFORK_SERVING_PORT']}", told["TUNINGFORK_SERVING_API_KEY"]


def api_of(home: Path) -> int:
    """The process that serves the home's port."""
    port = client_from(home / "client.env").base_url.port
    return process_of(home, "TUNINGFORK_API_PORT", str(port))[0]


def process_of(home: Path, name: str, value: str | None = None) -> tuple[int, dict[str, str]]:
    """Pid and environment of the first process that was told `name`."""
    for environ in sorted(Path("/proc").glob("[0-9]*/environ"), key=lambda path: int(path.parent.name)):
        try:
            words = environ.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        told = dict(word.split("=", 1) for word in words if "=" in word)
        if value is None and told.get(name, "").startswith(str(home.absolute())):
            return int(environ.parent.name), told
        if value is not None and told.get(name) == value:
            return int(environ.parent.name), told
    raise SystemExit(f"No process was told {name}.")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def latency(sides: tuple[Side, Side], *, requests: int) -> None:
    """Of an answer of one token, streamed and not; one request at a time."""
    for streamed in (False, True):
        times: dict[str, list[float]] = {side.name: [] for side in sides}
        for turn in range(requests + 10):
            for side in sides if turn % 2 else sides[::-1]:
                started = time.perf_counter()
                await ask(side, tokens=1, streamed=streamed)
                if turn >= 10:
                    times[side.name].append(time.perf_counter() - started)
        direct, gateway = (statistics.median(times[side.name]) * 1e3 for side in sides)
        pairs = zip(*(times[side.name] for side in sides), strict=True)
        added = statistics.median(through - straight for straight, through in pairs) * 1e3
        what = "a streamed token" if streamed else "a whole answer of one token"
        print(
            f"{what}: p50 directly {direct:.1f} ms, through the gateway {gateway:.1f} ms: "
            f"{gateway - direct:+.2f} ms, and pair by pair {added:+.2f} ms (goal: under 3)"
        )


async def throughput(sides: tuple[Side, Side], *, streams: int, tokens: int, turns: int, pid: int) -> None:
    await round_of(sides[0], streams=streams, tokens=8)
    await round_of(sides[1], streams=streams, tokens=8)
    ratios, spent, told = [], 0.0, 0
    for turn in range(turns):
        rates = {}
        for side in sides if turn % 2 else sides[::-1]:
            before = cpu_seconds(pid)
            rates[side.name] = await round_of(side, streams=streams, tokens=tokens)
            if side is sides[1]:
                spent, told = spent + cpu_seconds(pid) - before, told + streams * tokens
        direct, gateway = (rates[side.name] for side in sides)
        ratios.append(gateway / direct)
        print(
            f"turn {turn + 1}: directly {direct:6.0f} tokens/s   through the gateway {gateway:6.0f} tokens/s"
        )
    print(
        f"{streams} streams at once, gateway / directly: median {statistics.median(ratios):.3f} of {turns} turns "
        "(goal: at least 0.97)"
    )
    print(f"the gateway's own work: {spent / told * 1e6:.0f} us of CPU per token, requests included")


async def round_of(side: Side, *, streams: int, tokens: int) -> float:
    """Tokens per second of all streams together."""
    started = time.perf_counter()
    counts = await asyncio.gather(*(ask(side, tokens=tokens, streamed=True) for _ in range(streams)))
    return sum(counts) / (time.perf_counter() - started)


async def ask(side: Side, *, tokens: int, streamed: bool) -> int:
    """How many tokens came: each event but the first, the count and the end holds one."""
    body = {
        "model": BASE_MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_completion_tokens": tokens,
        "temperature": 0,
        "stream": streamed,
    }
    async with side.http.stream("POST", CHAT, json=body) as reply:
        events = 0
        async for chunk in reply.aiter_raw():
            events += chunk.count(b'"content":"')
        assert reply.status_code == 200, reply.status_code
    return events


if __name__ == "__main__":
    main()
