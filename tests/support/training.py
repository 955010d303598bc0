"""Runs driven as the trainer drives them, without its process and its pipe."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

from engine.contract.events import RunFailed, RunFinished, RunInterrupted, RunPaused, TrainEvent
from engine.contract.spec import RunSpec
from engine.passes.model import Model
from engine.trainer.live import LiveRun
from engine.trainer.rounds import Rounds
from engine.trainer.run import Run, RunControl

ENDS = (RunFinished, RunFailed, RunPaused, RunInterrupted)


def rounds_of(model: Model, woken: Event) -> Rounds:
    return Rounds(model, end_of_turn=model.base.end_of_turn, wake=woken.set)


def live_run(
    spec: RunSpec, *, folder: Path, model: Model, max_tokens: int = 512, control: RunControl | None = None
) -> LiveRun:
    control = control or RunControl()
    return LiveRun(Run(spec, folder=folder, model=model, max_tokens=max_tokens, control=control))


def story(
    run: LiveRun, *, model: Model, on_event: Callable[[TrainEvent], None] = lambda _: None
) -> list[TrainEvent]:
    """Alone, to its end."""
    ((_, told),) = stories([run], model=model, on_event=lambda _, event: on_event(event))
    return told


def stories(
    runs: Sequence[LiveRun],
    *,
    model: Model,
    on_event: Callable[[LiveRun, TrainEvent], None] = lambda *_: None,
) -> list[tuple[LiveRun, list[TrainEvent]]]:
    """Together, each to its end."""
    told: list[tuple[LiveRun, list[TrainEvent]]] = [(run, []) for run in runs]
    woken = Event()
    rounds = rounds_of(model, woken)
    live = list(runs)
    while live:
        woken.clear()
        done = rounds.round(live)
        for run, events in told:
            for event in said(run) if run in live else ():
                events.append(event)
                on_event(run, event)
                if isinstance(event, ENDS):
                    run.close()
                    live.remove(run)
                    rounds.leave(run)
                    break
                done = True
        if not done and live:
            woken.wait(timeout=0.05)
    return told


def said(run: LiveRun) -> Iterator[TrainEvent]:
    """What it has to say before it waits for work again."""
    ended = False
    while run.ready and not ended:
        event = run.advance()
        ended = isinstance(event, ENDS)
        if event is not None:
            yield event
