"""Writes what a checkpoint is made of into the run's folder, and reads it; whoever asks tells the world of it once all of it
is there."""

import contextlib
from collections.abc import Iterator
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
from engine.trainer.faults import EngineFaultError


class UnwrittenError(EngineFaultError):
    """The engine's disk took no checkpoint."""


class UnreadError(EngineFaultError):
    """The engine's disk does not give back what the run is to go on from."""


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


def read_weights(adapter: Trainable, folder: Path) -> None:
    """Raises UnreadError, or ValueError for another adapter's."""
    with reading():
        adapters.load_weights(adapter, folder)


def read(adapter: Trainable, optimizer: RowOptimizer, folder: Path) -> Kept:
    """All that `write` wrote with a state. Raises UnreadError, ValueError or KeyError."""
    read_weights(adapter, folder)
    with reading():
        return training_state.load(folder, optimizer, device=adapter.weights.device)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnreadError("the engine could not read the checkpoint that the run goes on from") from error
