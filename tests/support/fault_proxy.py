"""A TCP proxy that injects faults: a cut network, a hanging or slow one, an object store that answers 500. In a thread."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from deploy.embedded.ports import free_port

T = TypeVar("T")
CHUNK_BYTES: Final = 64 * 1024


class Proxies:
    """One event loop in a thread of its own, for all proxies of a cluster."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._networks: list[FakeNetwork] = []
        self._thread.start()

    def to(self, port: int) -> "FakeNetwork":
        self._networks.append(FakeNetwork(self, to=port))
        return self._networks[-1]

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def close(self) -> None:
        for network in self._networks:
            network.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


class FakeNetwork:
    """Between `port` and the server behind it. Every fault also reaches the connections that are open."""

    def __init__(self, proxies: Proxies, *, to: int) -> None:
        self.port, self._to, self._proxies = free_port(), to, proxies
        self._mode, self._delay, self._status, self._room = "pass", 0.0, 503, 0
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        proxies.call(self._start())

    async def _start(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def lead_to(self, port: int) -> None:
        """From the next connection on, as a balancer does."""
        self._to = port

    def heal(self) -> None:
        self._proxies.call(self._change("pass"))

    def cut(self) -> None:
        """Whoever is connected is thrown out, and so is everybody who comes."""
        self._proxies.call(self._change("cut"))

    def hang(self) -> None:
        """Connections open, and nothing passes either way: a cable that was pulled."""
        self._proxies.call(self._change("hang"))

    def delay(self, seconds: float) -> None:
        self._proxies.call(self._change("pass", delay=seconds))

    def answer(self, status: int) -> None:
        """In the server's place, as HTTP."""
        self._proxies.call(self._change("answer", status=status))

    def tear(self, *, after_bytes: int) -> None:
        """Each new connection is cut in the middle of what the client sends."""
        self._proxies.call(self._change("tear", room=after_bytes))

    async def _change(self, mode: str, *, delay: float = 0.0, status: int = 503, room: int = 0) -> None:
        self._mode, self._delay, self._status, self._room = mode, delay, status, room
        if mode == "hang":
            self._flowing.clear()
            return
        if mode != "pass":
            self._abort()
        self._flowing.set()

    def close(self) -> None:
        self._proxies.call(self._end())

    async def _end(self) -> None:
        self._server.close()
        self._flowing.set()
        self._abort()
        await asyncio.wait(self._tasks, timeout=2) if self._tasks else None

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            match self._mode:
                case "cut":
                    writer.transport.abort()
                case "answer":
                    await self._refuse(reader, writer)
                case _:
                    await self._join(reader, writer)
        self._writers.discard(writer)
        self._tasks.discard(task)
        writer.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if lengths:
            await reader.readexactly(int(lengths[0].split(b":")[1]))
        body = b"<Error><Code>InternalError</Code><Message>as the test says</Message></Error>"
        fields = f"content-type: application/xml\r\ncontent-length: {len(body)}\r\nconnection: close"
        writer.write(f"HTTP/1.1 {self._status} Fault\r\n{fields}\r\n\r\n".encode() + body)
        await writer.drain()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers.add(far_writer)
        room = self._room if self._mode == "tear" else None
        try:
            await asyncio.gather(self._pump(reader, far_writer, room), self._pump(far_reader, writer, None))
        finally:
            self._writers.discard(far_writer)
            far_writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, room: int | None
    ) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            await self._flowing.wait()
            if self._delay:
                await asyncio.sleep(self._delay)
            if room is not None:
                room -= len(chunk)
                if room < 0:
                    target.transport.abort()
                    raise ConnectionResetError("torn")
            target.write(chunk)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()
