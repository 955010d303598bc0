"""The contract's dataclasses to protobuf and back. The only place, beside the edges, that knows protobuf."""

import json
from collections.abc import Mapping
from typing import Any, assert_never, get_args

from engine.contract import events, spec
from engine.contract.grader_forms import grader_from, grader_to
from tuningfork_pb.v1 import engine_pb2 as pb


def spec_to_pb(run: spec.RunSpec) -> pb.RunSpec:
    return pb.RunSpec(
        job_id=run.job_id,
        attempt=run.attempt,
        base_model=run.base_model,
        method=method_to_pb(run.method),
        lora=pb.LoraOptions(**vars(run.lora)),
        seed=run.seed,
        training_file=run.training_file,
        validation_file=run.validation_file,
        start_step=run.start_step,
        starts_tuned=run.starts_tuned,
        training=training_to_pb(run.training),
    )


def training_to_pb(training: spec.TrainingOptions) -> pb.TrainingOptions:
    stopping = training.early_stopping
    fields = dict(vars(training)) | {"early_stopping": stopping and pb.EarlyStopping(**vars(stopping))}
    return pb.TrainingOptions(**fields)


def training_from_pb(message: pb.TrainingOptions) -> spec.TrainingOptions:
    """Raises ValueError for a schedule this release does not know."""
    fields = _fields(message)
    _known(fields["schedule"], get_args(spec.Schedule), what="schedule")
    if fields["early_stopping"] is not None:
        fields["early_stopping"] = spec.EarlyStopping(**_fields(message.early_stopping))
    return spec.TrainingOptions(**fields)


def _known(value: str, known: tuple[str, ...], *, what: str) -> None:
    if value not in known:
        raise ValueError(f"this engine knows no {what} {value!r}; upgrade it")


def method_to_pb(method: spec.Method) -> pb.Method:
    match method:
        case spec.Supervised():
            return pb.Method(supervised=pb.Supervised(**vars(method)))
        case spec.Dpo():
            return pb.Method(dpo=pb.Dpo(**vars(method)))
        case spec.Reinforcement():
            fields = dict(vars(method)) | {"grader": json.dumps(grader_to(method.grader))}
            if method.response_format is not None:
                fields["response_format"] = json.dumps(method.response_format)
            return pb.Method(reinforcement=pb.Reinforcement(**fields))
        case _:
            assert_never(method)


def method_from_pb(message: pb.Method) -> spec.Method:
    """Raises ValueError for a method or a loss this release does not know."""
    match message.WhichOneof("kind"):
        case "supervised":
            return spec.Supervised(**_fields(message.supervised))
        case "dpo":
            dpo = _there(_fields(message.dpo))
            _known(dpo.get("loss", "sigmoid"), get_args(spec.PairLoss), what="loss")
            return spec.Dpo(**dpo)
        case "reinforcement":
            fields = _fields(message.reinforcement)
            fields["grader"] = grader_from(json.loads(fields["grader"]), stored=True)
            if fields["response_format"] is not None:
                fields["response_format"] = json.loads(fields["response_format"])
            return spec.Reinforcement(**fields)
        case _:
            raise ValueError("this engine knows no such method; upgrade it")


def _fields(message: Any) -> dict[str, Any]:
    """Every field by name; None for an optional one that is not there."""
    return {
        field.name: getattr(message, field.name)
        if not field.has_presence or message.HasField(field.name)
        else None
        for field in message.DESCRIPTOR.fields
    }


def _there(fields: Mapping[str, Any]) -> dict[str, Any]:
    """For a sender that knows fewer fields: the defaults stand for what it did not say."""
    return {name: value for name, value in fields.items() if value is not None}


def spec_from_pb(message: pb.RunSpec) -> spec.RunSpec:
    """Raises ValueError for a method, a loss or a schedule this release does not know."""
    lora = _fields(message.lora)
    return spec.RunSpec(
        job_id=message.job_id,
        attempt=message.attempt,
        base_model=message.base_model,
        method=method_from_pb(message.method),
        lora=spec.LoraOptions(**lora | {"target_modules": tuple(lora["target_modules"])}),
        seed=message.seed,
        training_file=message.training_file,
        validation_file=message.validation_file if message.HasField("validation_file") else None,
        start_step=message.start_step,
        starts_tuned=message.starts_tuned,
        training=training_from_pb(message.training)
        if message.HasField("training")
        else spec.TrainingOptions(),
    )


def ref_to_pb(run: spec.RunRef) -> pb.RunRef:
    return pb.RunRef(job_id=run.job_id, attempt=run.attempt)


def ref_from_pb(message: pb.RunRef) -> spec.RunRef:
    return spec.RunRef(job_id=message.job_id, attempt=message.attempt)


_OPTIONAL_METRICS = (
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def metrics_to_pb(metrics: events.StepMetrics) -> pb.StepMetrics:
    message = pb.StepMetrics(
        step=metrics.step,
        total_steps=metrics.total_steps,
        train_loss=metrics.train_loss,
        train_mean_token_accuracy=metrics.train_mean_token_accuracy,
        extra=metrics.extra,
    )
    for name in _OPTIONAL_METRICS:
        if (value := getattr(metrics, name)) is not None:
            setattr(message, name, value)
    return message


def metrics_from_pb(message: pb.StepMetrics) -> events.StepMetrics:
    optional = {name: getattr(message, name) for name in _OPTIONAL_METRICS if message.HasField(name)}
    return events.StepMetrics(
        step=message.step,
        total_steps=message.total_steps,
        train_loss=message.train_loss,
        train_mean_token_accuracy=message.train_mean_token_accuracy,
        extra=dict(message.extra),
        **optional,
    )


def file_to_pb(file: events.CheckpointFile) -> pb.CheckpointFile:
    return pb.CheckpointFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256)


def file_from_pb(message: pb.CheckpointFile) -> events.CheckpointFile:
    return events.CheckpointFile(name=message.name, size_bytes=message.size_bytes, sha256=message.sha256)


def event_to_pb(numbered: events.NumberedEvent) -> pb.TrainEvent:
    message = pb.TrainEvent(sequence=numbered.sequence)
    match numbered.event:
        case events.RunPrepared() as e:
            message.prepared.CopyFrom(
                pb.RunPrepared(
                    train_examples=e.train_examples,
                    validation_examples=e.validation_examples,
                    tokens_per_epoch=e.tokens_per_epoch,
                    total_steps=e.total_steps,
                )
            )
        case events.StepDone() as e:
            step = pb.StepDone(
                metrics=metrics_to_pb(e.metrics),
                trained_tokens=e.trained_tokens,
                device_seconds=e.device_seconds,
            )
            message.step_done.CopyFrom(step)
        case events.CheckpointReady() as e:
            message.checkpoint_ready.CopyFrom(_checkpoint_to_pb(e))
        case events.RunFinished() as e:
            message.finished.CopyFrom(
                pb.RunFinished(trained_tokens=e.trained_tokens, device_seconds=e.device_seconds)
            )
        case events.RunFailed() as e:
            message.failed.CopyFrom(pb.RunFailed(code=e.code, message=e.message, param=e.param))
        case events.RunInterrupted() as e:
            message.interrupted.CopyFrom(pb.RunInterrupted(**vars(e)))
        case events.RunPaused() as e:
            message.paused.CopyFrom(pb.RunPaused(step=e.step))
        case events.RunNotice() as e:
            message.notice.CopyFrom(pb.RunNotice(message=e.message, warning=e.warning))
        case _:
            assert_never(numbered.event)
    return message


def size_of(numbered: events.NumberedEvent) -> int:
    """Bytes on the wire."""
    return int(event_to_pb(numbered).ByteSize())


def _checkpoint_to_pb(event: events.CheckpointReady) -> pb.CheckpointReady:
    message = pb.CheckpointReady(
        step=event.step,
        files=[file_to_pb(file) for file in event.files],
        metrics=metrics_to_pb(event.metrics),
        final=event.final,
        interim=event.interim,
    )
    if event.probe is not None:
        message.probe.CopyFrom(pb.Probe(token_ids=event.probe.token_ids, logprobs=event.probe.logprobs))
    return message


def event_from_pb(message: pb.TrainEvent) -> events.NumberedEvent:
    """Raises ValueError for an event this release does not know."""
    return events.NumberedEvent(sequence=message.sequence, event=_kind_from_pb(message))


def _kind_from_pb(message: pb.TrainEvent) -> events.TrainEvent:
    match message.WhichOneof("kind"):
        case "prepared":
            prepared = message.prepared
            return events.RunPrepared(
                train_examples=prepared.train_examples,
                validation_examples=prepared.validation_examples,
                tokens_per_epoch=prepared.tokens_per_epoch,
                total_steps=prepared.total_steps,
            )
        case "step_done":
            done = message.step_done
            return events.StepDone(
                metrics=metrics_from_pb(done.metrics),
                trained_tokens=done.trained_tokens,
                device_seconds=done.device_seconds,
            )
        case "checkpoint_ready":
            return _checkpoint_from_pb(message.checkpoint_ready)
        case "finished":
            return events.RunFinished(
                trained_tokens=message.finished.trained_tokens,
                device_seconds=message.finished.device_seconds,
            )
        case "notice":
            return events.RunNotice(message=message.notice.message, warning=message.notice.warning)
        case "failed":
            failed = message.failed
            return events.RunFailed(code=failed.code, message=failed.message, param=failed.param)
        case "interrupted":
            interrupted = message.interrupted
            return events.RunInterrupted(
                reason=interrupted.reason,
                planned=interrupted.planned,
                trainer_died=interrupted.trainer_died,
                step=interrupted.step,
            )
        case "paused":
            return events.RunPaused(step=message.paused.step)
        case kind:
            raise ValueError(f"unknown training event {kind!r}")


def _checkpoint_from_pb(message: pb.CheckpointReady) -> events.CheckpointReady:
    probe = None
    if message.HasField("probe"):
        probe = events.Probe(token_ids=tuple(message.probe.token_ids), logprobs=tuple(message.probe.logprobs))
    return events.CheckpointReady(
        step=message.step,
        files=tuple(file_from_pb(file) for file in message.files),
        metrics=metrics_from_pb(message.metrics),
        final=message.final,
        interim=message.interim,
        probe=probe,
    )
