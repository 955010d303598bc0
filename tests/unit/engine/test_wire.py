"""Whatever the contract can say survives the wire."""

import io
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract import events, pipe, spec, wire
from engine.contract.graders import StringCheck
from tuningfork_pb.v1 import engine_pb2 as pb

small = st.integers(0, 2**31 - 1)  # as large as an int32 may be
floats = st.floats(allow_nan=False, allow_infinity=False)
floats32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))  # a grader holds no NUL
lora = st.builds(
    spec.LoraOptions,
    rank=small,
    alpha=floats,
    dropout=floats,
    target_modules=st.lists(text).map(tuple),
    rslora=st.booleans(),
)
training = st.builds(
    spec.TrainingOptions,
    schedule=st.sampled_from(get_args(spec.Schedule)),
    warmup_ratio=st.none() | floats,
    floor=floats,
    max_grad_norm=floats,
    weight_decay=floats,
    early_stopping=st.none() | st.builds(spec.EarlyStopping, patience=small, min_delta=floats),
    best_checkpoint=st.booleans(),
)
hyperparameters = {"n_epochs": small, "batch_size": small, "learning_rate_multiplier": floats}
grader = st.builds(
    StringCheck,
    name=st.text(st.characters(codec="ascii", categories=["L"]), min_size=1),
    input=text,
    reference=text,
    operation=st.sampled_from(["eq", "like"]),
)
methods = {
    spec.Supervised: st.builds(spec.Supervised, **hyperparameters),
    spec.Dpo: st.builds(
        spec.Dpo,
        **hyperparameters,
        beta=floats,
        loss=st.sampled_from(get_args(spec.PairLoss)),
        label_smoothing=floats,
        gamma=floats,
        desirable_weight=floats,
        undesirable_weight=floats,
    ),
    spec.Reinforcement: st.builds(
        spec.Reinforcement,
        **hyperparameters,
        compute_multiplier=floats,
        eval_interval=small,
        eval_samples=small,
        grader=grader,
        response_format=st.none() | st.just({"type": "json_schema", "json_schema": {"name": "a"}}),
    ),
}
runs = st.builds(
    spec.RunSpec,
    job_id=text,
    attempt=small,
    base_model=text,
    method=st.one_of(*methods.values()),
    lora=lora,
    seed=small,
    training_file=text,
    validation_file=st.none() | text,
    start_step=small,
    starts_tuned=st.booleans(),
    training=training,
)
metrics = st.builds(
    events.StepMetrics,
    step=small,
    total_steps=small,
    train_loss=floats,
    train_mean_token_accuracy=floats,
    valid_loss=st.none() | floats,
    valid_mean_token_accuracy=st.none() | floats,
    full_valid_loss=st.none() | floats,
    full_valid_mean_token_accuracy=st.none() | floats,
    extra=st.dictionaries(text, floats, max_size=3),
)
files = st.builds(events.CheckpointFile, name=text, size_bytes=small, sha256=text)
probes = st.builds(events.Probe, token_ids=st.lists(small).map(tuple), logprobs=st.lists(floats32).map(tuple))
kinds = {
    events.RunPrepared: st.builds(
        events.RunPrepared,
        train_examples=small,
        validation_examples=small,
        tokens_per_epoch=small,
        total_steps=small,
    ),
    events.StepDone: st.builds(events.StepDone, metrics=metrics, trained_tokens=small, device_seconds=floats),
    events.CheckpointReady: st.builds(
        events.CheckpointReady,
        step=small,
        files=st.lists(files).map(tuple),
        metrics=metrics,
        final=st.booleans(),
        interim=st.booleans(),
        probe=st.none() | probes,
    ),
    events.RunFinished: st.builds(events.RunFinished, trained_tokens=small, device_seconds=floats),
    events.RunFailed: st.builds(events.RunFailed, code=text, message=text, param=text),
    events.RunInterrupted: st.builds(
        events.RunInterrupted, reason=text, planned=st.booleans(), trainer_died=st.booleans(), step=small
    ),
    events.RunPaused: st.builds(events.RunPaused, step=small),
    events.RunNotice: st.builds(events.RunNotice, message=text, warning=st.booleans()),
}


def test_every_method_and_event_is_tried() -> None:
    assert set(methods) == set(get_args(spec.Method))
    assert set(kinds) == set(get_args(events.TrainEvent))


@given(runs)
def test_a_run_survives(run: spec.RunSpec) -> None:
    assert wire.spec_from_pb(pb.RunSpec.FromString(wire.spec_to_pb(run).SerializeToString())) == run


def test_a_control_plane_of_the_last_release_asks_for_the_defaults() -> None:
    dpo = pb.Method(dpo=pb.Dpo(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1))
    old = pb.RunSpec(job_id="a", method=dpo, lora=pb.LoraOptions(rank=4, alpha=8))
    run = wire.spec_from_pb(old)
    assert run.method == spec.Dpo(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1)
    assert run.training == spec.TrainingOptions() and not run.lora.rslora


@pytest.mark.parametrize("what", ["loss", "schedule"])
def test_what_a_newer_control_plane_asks_for_is_refused(what: str) -> None:
    method = spec.Dpo(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1)
    run = spec.RunSpec(job_id="a", attempt=1, base_model="b", method=method, lora=spec.LoraOptions(), seed=1)
    message = wire.spec_to_pb(run)
    setattr(message.method.dpo if what == "loss" else message.training, what, "magic")
    with pytest.raises(ValueError, match=f"knows no {what} 'magic'; upgrade it"):
        wire.spec_from_pb(message)


@given(st.builds(events.NumberedEvent, sequence=small, event=st.one_of(*kinds.values())))
def test_an_event_survives(event: events.NumberedEvent) -> None:
    message = wire.event_to_pb(event)
    assert wire.event_from_pb(pb.TrainEvent.FromString(message.SerializeToString())) == event


@given(st.lists(text))
def test_frames_come_out_as_they_went_in(reasons: list[str]) -> None:
    stream = io.BytesIO()
    for reason in reasons:
        pipe.write(stream, pb.RunInterrupted(reason=reason))
    stream.seek(0)
    read = [pb.RunInterrupted.FromString(payload).reason for payload in iter(lambda: pipe.read(stream), None)]
    assert read == reasons
