"""`python -m api.integrations <type>`: deliveries come in on stdin, one answer each goes out on stdout.

A process of its own: these libraries start threads and servers, block, write to stdout, and may end the process.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from api.integrations.told import Told

PR_SET_PDEATHSIG: Final = 1
MAX_DETAIL: Final = 500


def main(kind: str) -> None:
    """Until stdin ends. Dies with its parent, which may have ended before we asked for that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    send = sender(kind)
    for line in sys.stdin:
        answers.write(json.dumps(answer(send, Told(json.loads(line), sys.stdin))) + "\n")
        answers.flush()


def sender(kind: str) -> Callable[[Told], str]:
    """Each library is imported only in the process that needs it."""
    if kind == "mlflow":
        from api.integrations import mlflow_runs

        return mlflow_runs.send
    if kind == "tensorboard":
        from api.integrations import tensorboard_files

        return tensorboard_files.write
    from api.integrations import wandb_runs

    return {"wandb": wandb_runs.online, "wandb-offline": wandb_runs.offline}[kind]


def answer(send: Callable[[Told], str], told: Told) -> dict[str, Any]:
    try:
        return {"remote": send(told)}
    except Exception as error:
        told.skip()
        detail = f"{type(error).__name__}: {error}"[:MAX_DETAIL]
        return {"error": "unreachable" if is_of_the_way(error) else "refused", "detail": detail}


def is_of_the_way(error: BaseException | None) -> bool:
    """A connection or a time that ran out, however deep: requests' errors are OSErrors too."""
    while error is not None:
        if isinstance(error, OSError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main(sys.argv[1])
