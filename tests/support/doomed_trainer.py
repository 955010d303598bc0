"""The trainer in a process of its own, with a fault that its first argument names. It stands for a GPU that is lost, and for
a mistake of ours in the loop; meanwhile a thread waits for an answer that nobody will give, as a model grader's does.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from engine.passes.fused import FusedModel
from engine.trainer import __main__ as trainer
from engine.trainer.rounds import Rounds


def fake_round(*_: Any) -> NoReturn:
    raise RuntimeError("a mistake of ours, as the test says")


def ends_loop() -> None:
    Rounds.round = fake_round  # type: ignore[method-assign]


def fake_pass(*_: Any) -> NoReturn:
    raise torch.AcceleratorError(
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"
    )


def loses_gpu() -> None:
    FusedModel.run_pass = fake_pass  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {"loop": ends_loop, "gpu": loses_gpu}


def main(arguments: Sequence[str]) -> None:
    FAULTS[arguments[0]]()
    threading.Thread(target=threading.Event().wait).start()
    sys.argv = [sys.argv[0], *arguments[1:]]
    trainer.main()


if __name__ == "__main__":
    main(sys.argv[1:])
