"""MLflow: one run per job, found again by a tag; a metric is written once per step, whatever was interrupted."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from api.integrations.told import Point, Run, Told, flat

KEY_TAG: Final = "tuningfork.delivery"
BATCH: Final = 500  # metrics in one call; the protocol's limit is 1000
MAX_PARAMS: Final = 100
MAX_PARAM: Final = 500
ENDS: Final = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def send(told: Told) -> str:
    """The run's id."""
    client = MlflowClient()
    if told.run.again:
        mend(client.tracking_uri, key=told.run.key)
    run_id = told.run.remote or found_or_made(client, told.run)
    known = Known(client, run_id) if told.run.again else None
    fresh = fresh_metrics(told, known)
    while batch := list(islice(fresh, BATCH)):
        client.log_batch(run_id, metrics=batch)
    if told.end is not None:
        for name, value in told.end.items():
            client.set_tag(run_id, f"tuningfork.{name}", str(value))
        client.set_terminated(run_id, status=ENDS[told.end["status"]])
    return run_id


def fresh_metrics(told: Told, known: "Known | None") -> Iterator[Metric]:
    """Of a step that two attempts trained, the first one's: a metric's history has no way back."""
    last = told.run.after_step
    for point in told.points():
        if point.step > last:
            last = point.step
            yield from (each for each in metrics_of(point) if known is None or not known.has(each))


def metrics_of(point: Point) -> Iterator[Metric]:
    for name, value in point.values.items():
        yield Metric(named(name), float(value), int(point.at * 1000), point.step)


def named(name: str) -> str:
    """MLflow's alphabet for names."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "_-. :/") else "_" for each in name)


class Known:
    """What the run has, asked for once per metric."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._steps: dict[str, set[int]] = {}

    def has(self, metric: Metric) -> bool:
        if metric.key not in self._steps:
            history = self._client.get_metric_history(self._run_id, metric.key)
            self._steps[metric.key] = {each.step for each in history}
        return metric.step in self._steps[metric.key]


def found_or_made(client: MlflowClient, run: Run) -> str:
    """A try that was interrupted may have made it."""
    experiment = experiment_of(client, run.fields["experiment"])
    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{run.key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
    else:
        tags = {**run.fields["tags"], KEY_TAG: run.key, "tuningfork.job_id": run.job_id}
        name = run.fields["run_name"] or run.job_id
        run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    params = [Param(key, str(value)[:MAX_PARAM]) for key, value in flat(run.config).items()]
    client.log_batch(run_id, params=params[:MAX_PARAMS])
    return str(run_id)


def mend(store: str, *, key: str) -> None:
    """A kill between making a metric's file and its first line leaves one in MLflow's file store that it cannot read: then
    it finds no run of the experiment any more, and no history of this one."""
    place = urlparse(store)
    if place.scheme not in ("", "file"):
        return
    for tag in Path(unquote(place.path)).glob(f"*/*/tags/{KEY_TAG}"):
        if tag.read_text() == key:
            for metric in (tag.parents[1] / "metrics").glob("*"):
                if metric.is_file() and metric.stat().st_size == 0:
                    metric.unlink()


def experiment_of(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
