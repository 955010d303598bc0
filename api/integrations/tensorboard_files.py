"""TensorBoard: a job's event file, written whole each time. The writer needs neither torch nor tensorflow, and is used
below its queue and threads: nobody waits for this process but its answer's reader."""

import json
from collections.abc import Iterable
from typing import Any, Final

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, text

from api.integrations.told import Point, Told, flat

HPARAM_METRICS: Final = ("train_loss", "valid_loss", "full_valid_loss")


def write(told: Told) -> str:
    """The file's path, empty where there is nothing to show."""
    points = told.newest_points()
    if not points:
        return ""
    writer = EventsWriter(str(told.run.folder / "job"))
    for summary in beginning(told, points):
        writer.write_event(Event(wall_time=points[0].at, step=0, summary=summary))
    for point in points:
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in point.values.items()]
        writer.write_event(Event(wall_time=point.at, step=point.step, summary=Summary(value=values)))
    if told.end is not None:
        status = text("status", json.dumps(dict(told.end)))
        writer.write_event(Event(wall_time=points[-1].at, step=points[-1].step, summary=status))
    writer.close()
    (written,) = told.run.folder.iterdir()
    return str(written)


def beginning(told: Told, points: Iterable[Point]) -> list[Any]:
    """The job as text, and its numbers for the page that compares hyperparameters."""
    measured = {name: 0.0 for name in HPARAM_METRICS if any(name in point.values for point in points)}
    job = text("job", f"```json\n{json.dumps(dict(told.run.config), indent=2)}\n```")
    return [job, *hparams(flat(told.run.config), measured)]
