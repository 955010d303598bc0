"""TensorBoard: a job's event file, written whole each time; the writer needs neither torch nor tensorflow."""

import json
import shutil
from typing import Final

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from api.integrations.told import Told, flat

FILE: Final = "events"
HPARAM_METRICS: Final = ("train_loss", "valid_loss", "full_valid_loss")


def write(told: Told) -> str:
    """The file's path, empty where there is nothing to show."""
    folder = told.run.folder
    points = told.newest_points()
    if not points:
        return ""
    began = points[0].at
    writer = SummaryWriter(logdir=str(folder / "log"), flush_secs=3600)
    writer.add_text("job", f"```json\n{json.dumps(dict(told.run.config), indent=2)}\n```", 0, walltime=began)
    measured = {name: 0.0 for name in HPARAM_METRICS if any(name in point.values for point in points)}
    for summary in hparams(flat(told.run.config), measured):
        writer.file_writer.add_summary(summary, 0, began)
    for point in points:
        for name, value in point.values.items():
            writer.add_scalar(name, float(value), point.step, walltime=point.at)
    if told.end is not None:
        writer.add_text("status", json.dumps(dict(told.end)), points[-1].step, walltime=points[-1].at)
    writer.close()
    (written,) = (folder / "log").iterdir()
    target = folder / FILE
    written.replace(target)
    shutil.rmtree(folder / "log")
    return str(target)
