"""The processes that hold one host's devices: rank 0 starts the others, orders go down their stdin, replies come up their
stdout, and tensors go through a process group (gloo between CPUs, NCCL between GPUs). Knows no model.

A rank that is lost ends the whole trainer: the worker starts another, and its runs go on from their checkpoints.
"""

import atexit
import ctypes
import logging
import os
import queue
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import BinaryIO, Final

import torch
import torch.distributed as dist

from engine.contract import pipe
from engine.settings import meet_on_loopback

MEETING_TIMEOUT: Final = timedelta(minutes=30)  # the largest bases take that long to load
REPLY_SECONDS: Final = 3600.0  # of one pass
END_SECONDS: Final = 2.0
PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)

log = logging.getLogger("tuningfork.trainer")


def end_trainer(reason: str) -> None:
    """At once, whatever waits: another rank may be in the middle of something that now never ends."""
    log.critical("%s: the trainer ends", reason)
    logging.shutdown()
    os._exit(1)


def join(folder: Path, *, rank: int, size: int) -> None:
    """Returns when all ranks are there."""
    meet_on_loopback()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = dist.FileStore(  # type: ignore[attr-defined]
        str(folder / "meeting"), size
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=MEETING_TIMEOUT)


def die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Member:
    """Another rank, as rank 0 sees it."""

    def __init__(self, rank: int, command: Sequence[str], *, on_loss: Callable[[str], None]) -> None:
        self.rank, self._on_loss, self._closing = rank, on_loss, False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent
        )
        self._replies: queue.Queue[bytes] = queue.Queue()
        self._early: bytes | None = None
        Thread(target=self._read, daemon=True, name=f"rank-{rank}").start()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def order(self, payload: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pipe.framed(payload))
            self._process.stdin.flush()
        except BrokenPipeError:
            self._lost("takes no orders")

    def answered(self, *, within: float) -> bool:
        """Whether a reply is there, after so many seconds at most."""
        if self._early is None:
            with suppress(queue.Empty):
                self._early = self._replies.get(timeout=within)
        return self._early is not None

    def reply(self) -> bytes:
        if self._early is not None:
            early, self._early = self._early, None
            return early
        try:
            return self._replies.get(timeout=REPLY_SECONDS)
        except queue.Empty:
            self._lost(f"has not answered for {REPLY_SECONDS:.0f} s")
            raise

    def send(self, tensor: torch.Tensor) -> None:
        try:
            dist.send(tensor, self.rank)
        except RuntimeError:
            self._lost("takes no weights")
            raise

    def receive(self, tensor: torch.Tensor) -> None:
        try:
            dist.recv(tensor, self.rank)
        except RuntimeError:
            self._lost("sends no gradients")
            raise

    def close(self) -> None:
        self._closing = True
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def gone(self) -> None:
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while (payload := pipe.read(self._process.stdout)) is not None:  # type: ignore[arg-type]
            self._replies.put(payload)
        self._process.wait()
        self._lost(f"ended with {self._process.returncode}")

    def _lost(self, how: str) -> None:
        if not self._closing:
            self._on_loss(f"the process of device {self.rank} ({self._process.pid}) {how}")


class Team:
    """Rank 0's. `command(rank, folder)` starts another rank, which meets us in the folder."""

    def __init__(
        self,
        command: Callable[[int, Path], Sequence[str]],
        *,
        devices: int,
        on_loss: Callable[[str], None] = end_trainer,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tuningfork-ranks-"))
        atexit.register(self.tidy)
        self.devices, self._on_loss = devices, on_loss
        self.members = [
            Member(rank, command(rank, self._folder), on_loss=self._lost) for rank in range(1, devices)
        ]

    def join(self) -> None:
        join(self._folder, rank=0, size=self.devices)

    def close(self) -> None:
        for member in self.members:
            member.close()
        for member in self.members:
            member.gone()
        if dist.is_initialized():
            dist.destroy_process_group()
        self.tidy()

    def _lost(self, reason: str) -> None:
        self.tidy()
        self._on_loss(reason)

    def tidy(self) -> None:
        """The folder goes in which all have met."""
        atexit.unregister(self.tidy)
        shutil.rmtree(self._folder, ignore_errors=True)


class Post:
    """Another rank's own side."""

    def __init__(self, orders: BinaryIO, replies: BinaryIO) -> None:
        self._orders, self._replies = orders, replies

    def order(self) -> bytes | None:
        """None when rank 0 has gone."""
        return pipe.read(self._orders)

    def reply(self, payload: bytes) -> None:
        self._replies.write(pipe.framed(payload))
        self._replies.flush()

    def send(self, tensor: torch.Tensor) -> None:
        dist.send(tensor, 0)

    def receive(self, tensor: torch.Tensor) -> None:
        dist.recv(tensor, 0)
