"""Weights & Biases. Online a run is opened, told what is new, and let go without being ended; offline it is written
whole, once, into a folder that `wandb sync` takes."""

import shutil
from typing import Any, Final

import wandb

from api.integrations.told import Told

INIT_SECONDS: Final = 30.0
FINISH_SECONDS: Final = 60.0


def online(told: Told) -> str:
    """The run's address. The service knows which steps it has, and none is sent twice."""
    run = opened(told, mode="online")
    last = max(told.run.after_step, int(run.starting_step) - 1)
    for point in told.points():
        if point.step > last:
            run.log(dict(point.values), step=point.step)
            last = point.step
    address = str(run.url)
    close(run, told)
    return address


def offline(told: Told) -> str:
    """The folder's name. What an earlier try left is thrown away first, so that there is one run folder per job."""
    shutil.rmtree(told.run.folder, ignore_errors=True)
    run = opened(told, mode="offline")
    for point in told.newest_points():
        run.log(dict(point.values), step=point.step)
    close(run, told)
    return f"offline/{told.run.key}"


def opened(told: Told, *, mode: str) -> Any:
    asked = told.run
    asked.folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=asked.fields["project"],
        entity=asked.fields["entity"],
        name=asked.fields["name"] or asked.job_id,
        tags=asked.fields["tags"],
        id=asked.job_id,
        resume="allow" if mode == "online" else None,
        config=dict(asked.config),
        dir=str(asked.folder),
        settings=quiet(mode, ends=asked.final),
    )


def close(run: Any, told: Told) -> None:
    """Waits until all is there. Only a job that is over ends its run; one that goes on is let go and stays open."""
    if told.end is not None:
        run.summary.update(dict(told.end))
    failed = told.end is not None and told.end["status"] != "succeeded"
    run.finish(exit_code=1 if failed else 0)


def quiet(mode: str, *, ends: bool) -> Any:
    """No word about this machine or its code leaves it, and nothing waits without an end."""
    return wandb.Settings(
        mode=mode,
        init_timeout=INIT_SECONDS,
        login_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        x_update_finish_state=ends,
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
