"""Writes what a checkpoint is made of into the run's folder; whoever asks tells the world of it once all of it is there."""

import contextlib
from pathlib import Path

from safetensors import SafetensorError

from engine.contract.events import CheckpointFile
from engine.contract.failpoints import Failpoints
from engine.contract.spec import NOW_FILE
from engine.lora import adapter as adapters
from engine.lora import training_state
from engine.lora.optimizer import RowOptimizer
from engine.lora.training_state import Kept
from engine.passes.model import Trainable


class UnwrittenError(Exception):
    """The engine's disk took no checkpoint. The run is not to blame."""


def note(folder: Path, words: str) -> None:
    """What the run does now, for whoever asks why the process died. Renamed into place, so it is never half written."""
    with contextlib.suppress(OSError):
        new = folder / f"{NOW_FILE}.new"
        new.write_text(words)
        new.replace(folder / NOW_FILE)


def write(
    adapter: Trainable,
    *,
    folder: Path,
    base_model: str,
    state: tuple[RowOptimizer, Kept] | None,
    failpoints: Failpoints,
) -> tuple[CheckpointFile, ...]:
    """`state`: for one that training may go on from. Raises UnwrittenError."""
    try:
        files = adapters.export(adapter, base_model=base_model, folder=folder)
        failpoints.reach_blocking("save")
        if state is not None:
            files += (training_state.save(folder, *state),)
    except (OSError, SafetensorError) as error:
        raise UnwrittenError("the engine could not write a checkpoint: is its disk full?") from error
    return files
