"""`python -m engine.trainer`: loads the base model once, says so, and trains what the worker sends.

Frames leave by the descriptor that was standard output; standard output itself becomes standard error, so that a
library's print cannot stand between two frames. With several devices this process is rank 0, which starts itself again
for each of the others.
"""

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import torch

from engine.contract import failpoints, pipe
from engine.contract.failpoints import Failpoints
from engine.contract.spec import ALL_LINEAR, LoraOptions, RunSpec
from engine.models.decoder import why_unknown
from engine.models.frozen import NF4
from engine.models.resident import ResidentModel, dtype_of, load, size_of
from engine.passes import team
from engine.passes.choose import model_of
from engine.passes.follower import Follower
from engine.passes.fused import FusedModel
from engine.passes.model import Model
from engine.passes.parallel import ParallelModel
from engine.passes.team import Post, Team
from engine.trainer import process
from engine.trainer.run import Run, RunControl
from tuningfork_pb.v1 import engine_pb2 as pb

PR_SET_PDEATHSIG: Final = 1
SHARE_FOR_BASE: Final = 0.8  # of a GPU's memory

log = logging.getLogger("tuningfork.trainer")


def main() -> None:
    """Ends the process at once, whatever ends the work: an interpreter would first wait for threads, which may wait for a
    loop that is gone, and a trainer that is there but does nothing keeps its leases for ever."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = status_of(end)
    except BaseException:
        log.critical("the trainer ends", exc_info=True)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            logging.shutdown()
        os._exit(status)


def status_of(end: SystemExit) -> int:
    """As the interpreter has it: words are said, and mean 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    log.critical("%s", end.code)
    return 1


def work() -> None:
    options = parse(sys.argv[1:])
    die_with_worker()
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    name = f"trainer {options.rank}" if options.rank else "trainer"
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    devices = options.devices or max(1, torch.cuda.device_count())
    prepare(options, devices=devices)
    if options.rank:
        follow(options, devices=devices, reports=reports)
    else:
        lead(options, devices=devices, reports=reports)


def die_with_worker() -> None:
    """By the kernel: a worker that is killed cannot end its trainer, and the next one needs the memory."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare(options: argparse.Namespace, *, devices: int) -> None:
    """Ranks that share a CPU share its cores."""
    if options.threads:
        torch.set_num_threads(options.threads)
    elif devices > 1 and not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    if torch.cuda.is_available():
        if devices > torch.cuda.device_count():
            raise SystemExit(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs.")
        torch.cuda.set_device(options.rank)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every new tensor is filled with NaN first. Nobody reads one before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def lead(options: argparse.Namespace, *, devices: int, reports: BinaryIO) -> None:
    others = Team(partial(command, sys.argv[1:]), devices=devices) if devices > 1 else None
    try:
        train(options, others, reports=reports)
    finally:
        if others is not None:
            others.tidy()


def train(options: argparse.Namespace, others: Team | None, *, reports: BinaryIO) -> None:
    sharded = others is not None and is_sharded(options)
    base = read(options, sharded=sharded)
    model = chosen(base, options, others, sharded=sharded)
    device = str(base.device) if model.devices == 1 else f"{model.devices} x {base.device}"
    ready = pb.TrainerReady(
        base_model=base.name,
        device=device,
        runs=model.most_runs,
        room_bytes=model.room,
        pass_bytes=model.least_need(LoraOptions(rank=1), copies=0, tokens=1).passing,
        rank_bytes=rank_bytes(model),
    )
    pipe.write(reports, pb.TrainerReport(ready=ready))
    start = partial(
        start_run,
        model=model,
        max_tokens=options.max_example_tokens,
        failpoints=failpoints.parse(options.failpoints),
    )
    process.serve(
        model,
        start=start,
        commands_from=sys.stdin.buffer,
        reports_to=reports,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    if others is not None:
        others.close()


def rank_bytes(model: Model) -> dict[str, int]:
    """By module: what an adapter of rank 1 takes while its run lives."""
    alone = {module: LoraOptions(rank=1, target_modules=(module,)) for module in ALL_LINEAR}
    return {module: model.need(options, copies=0, tokens=1).resident for module, options in alone.items()}


def chosen(base: ResidentModel, options: argparse.Namespace, others: Team | None, *, sharded: bool) -> Model:
    alone = why_unknown(base.causal_lm, max_tokens=options.max_example_tokens)
    if others is not None and alone is not None:
        if sharded:
            raise SystemExit(f"{base.name} cannot be cut up between devices: {alone}.")
        log.warning("%s is computed on one device: only our own passes can share", base.name)
        others.close()
        others = None
    if others is not None:
        others.join()
    model = model_of(
        base,
        max_tokens=options.max_example_tokens,
        most_runs=options.runs,
        fixed_shapes=options.fixed_shapes,
        sharded=sharded,
    )
    if others is None:
        return model
    assert isinstance(model, FusedModel)
    return ParallelModel(model, others)


def read(options: argparse.Namespace, *, sharded: bool) -> ResidentModel:
    dtype = dtype_of(options.dtype)
    if options.quantization:
        from engine.models.quantized import load_nf4  # with bitsandbytes, whose import takes long

        return load_nf4(options.model_path, name=options.base_model, dtype=dtype)
    return load(options.model_path, name=options.base_model, dtype=dtype, sharded=sharded)


def follow(options: argparse.Namespace, *, devices: int, reports: BinaryIO) -> None:
    """Where the family is unknown, rank 0 ends this process before all have met."""
    sharded = is_sharded(options)
    base = read(options, sharded=sharded)
    team.join(options.meeting, rank=options.rank, size=devices)
    model = FusedModel(base, most_runs=options.runs, fixed_shapes=options.fixed_shapes, sharded=sharded)
    Follower(model, Post(sys.stdin.buffer, reports)).serve()


def is_sharded(options: argparse.Namespace) -> bool:
    """Of itself where a GPU could not hold the base and still have room for runs."""
    if options.quantization:
        if options.shard == "on":
            raise SystemExit("A base in NF4 cannot be cut up between devices: leave out --shard on.")
        return False
    if options.shard != "auto":
        return bool(options.shard == "on")
    if not torch.cuda.is_available():
        return False
    _, whole = torch.cuda.mem_get_info()
    return size_of(options.model_path) > SHARE_FOR_BASE * whole


def command(arguments: Sequence[str], rank: int, meeting: Path) -> list[str]:
    own = ["--rank", str(rank), "--meeting", str(meeting)]
    return [sys.executable, "-m", "engine.trainer", *arguments, *own]


def start_run(
    spec: RunSpec,
    folder: Path,
    control: RunControl,
    *,
    model: Model,
    max_tokens: int,
    failpoints: Failpoints,
) -> Run:
    return Run(
        spec, folder=folder, model=model, max_tokens=max_tokens, control=control, failpoints=failpoints
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", required=True, help="the name that runs ask for")
    parser.add_argument(
        "--model-path", required=True, type=Path, help="folder with config, weights, tokenizer"
    )
    parser.add_argument("--max-example-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--quantization", choices=[NF4], help="how the base's weights are held; else as floats"
    )
    parser.add_argument(
        "--fixed-shapes",
        action="store_true",
        help="on a GPU: a run's bits do not depend on its neighbours, for some speed",
    )
    parser.add_argument("--threads", type=int, default=0, help="of each device; 0: as many as torch chooses")
    parser.add_argument("--runs", type=int, default=1, help="adapters that may be trained at the same time")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=600, help="between what a run can go on from"
    )
    parser.add_argument("--devices", type=int, default=0, help="0: every GPU, or one process on the CPU")
    parser.add_argument(
        "--shard",
        choices=["auto", "on", "off"],
        default="auto",
        help="each device holds a part of the base's layers; auto: where a GPU could not hold all of them",
    )
    parser.add_argument("--failpoints", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
