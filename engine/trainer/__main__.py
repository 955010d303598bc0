"""`python -m engine.trainer`: loads the base model once, says so, and trains what the worker sends.

Frames leave by the descriptor that was standard output; standard output itself becomes standard error, so that a
library's print cannot stand between two frames.
"""

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

import torch

from engine.contract import pipe
from engine.contract.spec import RunSpec
from engine.models.quantized import KIND, load_nf4
from engine.models.resident import dtype_of, load
from engine.passes.choose import model_of
from engine.passes.model import Model
from engine.trainer import process
from engine.trainer.run import Run, RunControl
from tuningfork_pb.v1 import engine_pb2 as pb


def main() -> None:
    options = parse()
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s trainer %(levelname)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    read = load_nf4 if options.quantization else load
    base = read(options.model_path, name=options.base_model, dtype=dtype_of(options.dtype))
    model = model_of(
        base,
        max_tokens=options.max_example_tokens,
        most_runs=options.runs,
        fixed_shapes=options.fixed_shapes,
    )
    ready = pb.TrainerReady(base_model=base.name, device=str(base.device), runs=model.most_runs)
    pipe.write(reports, pb.TrainerReport(ready=ready))
    start = partial(start_run, model=model, max_tokens=options.max_example_tokens)
    process.serve(model, start=start, commands_from=sys.stdin.buffer, reports_to=reports)


def start_run(spec: RunSpec, folder: Path, control: RunControl, *, model: Model, max_tokens: int) -> Run:
    return Run(spec, folder=folder, model=model, max_tokens=max_tokens, control=control)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", required=True, help="the name that runs ask for")
    parser.add_argument(
        "--model-path", required=True, type=Path, help="folder with config, weights, tokenizer"
    )
    parser.add_argument("--max-example-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--fixed-shapes",
        action="store_true",
        help="on a GPU: a run's bits do not depend on its neighbours, for some speed",
    )
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--runs", type=int, default=1, help="adapters that may be trained at the same time")
    parser.add_argument(
        "--quantization", choices=[KIND], help="how the base's weights are held; else as floats"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
