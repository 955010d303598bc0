"""Preferences, rewards, and going on from a checkpoint: losses against their formulas, bits against an undisturbed run."""

import shutil
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from engine.contract.events import CheckpointReady, RunFailed, RunFinished, RunPaused, StepDone, TrainEvent
from engine.contract.graders import GraderMessage, PythonGrader, ScoreModel, StringCheck
from engine.contract.sampling import MAX_ANSWER_TOKENS, group_size
from engine.contract.spec import Dpo, LoraOptions, Method, Reinforcement, RunSpec, Supervised, TrainingOptions
from engine.data.chat import ChatFormat
from engine.data.prompts import encode_prompt
from engine.methods.objective import StepContext
from engine.methods.reinforcement import ReinforcementObjective, advantages, together
from engine.models.resident import load
from engine.passes.choose import model_of
from engine.passes.model import Model
from engine.passes.work import GoneError, Sample
from engine.trainer.objectives import chat_of
from tests.support.training import live_run, rounds_of, said, story
from tests.unit.engine.test_run import ROWS, prepared, spec, write

MAX_TOKENS = 56
PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"say {n}"}]},
        "preferred_output": [{"role": "assistant", "content": "yes " * (n % 3 + 1)}],
        "non_preferred_output": [{"role": "assistant", "content": "no " * (n % 4 + 1)}],
    }
    for n in range(10)
]
PROMPTS = [{"messages": [{"role": "user", "content": f"say {n}"}], "answer": "a"} for n in range(4)]
LIKES_E = StringCheck(name="e", input="{{ sample.output_text }}", reference="e", operation="ilike")


def reinforcement(**changes: Any) -> Reinforcement:
    fields: dict[str, Any] = {
        "n_epochs": 2,
        "batch_size": 2,
        "learning_rate_multiplier": 1.0,
        "compute_multiplier": 0.5,
        "eval_interval": 3,
        "eval_samples": 2,
        "grader": LIKES_E,
    }
    return Reinforcement(**(fields | changes))


METHODS: dict[str, tuple[Method, list[dict[str, Any]]]] = {
    "supervised": (Supervised(n_epochs=2, batch_size=4, learning_rate_multiplier=1.0), ROWS),
    "dpo": (Dpo(n_epochs=2, batch_size=4, learning_rate_multiplier=1.0, beta=0.1), PAIRS),
    "reinforcement": (reinforcement(), PROMPTS),
}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return model_of(load(tiny_model, name="tiny"), max_tokens=MAX_TOKENS, most_runs=4)


@pytest.fixture
def chat(model: Model) -> ChatFormat:
    return chat_of(model.base, max_tokens=MAX_TOKENS)


def told_by(
    run: RunSpec,
    *,
    rows: list[dict[str, Any]],
    folder: Path,
    model: Model,
    pause_after: int | None = None,
    valid: list[dict[str, Any]] | None = None,
) -> list[TrainEvent]:
    folder.mkdir(exist_ok=True)
    write(folder / "train.jsonl", rows)
    write(folder / "valid.jsonl", valid or rows[:2])
    live = live_run(run, folder=folder, model=model, max_tokens=MAX_TOKENS)

    def pause(event: TrainEvent) -> None:
        if isinstance(event, StepDone) and event.metrics.step == pause_after:
            live.run.control.pausing = True

    return story(live, model=model, on_event=pause)


def last_checkpoint(told: list[TrainEvent]) -> CheckpointReady:
    return [event for event in told if isinstance(event, CheckpointReady)][-1]


@pytest.mark.parametrize("name", METHODS)
def test_a_paused_run_ends_with_the_bits_of_an_undisturbed_one(
    name: str, model: Model, tmp_path: Path
) -> None:
    method, rows = METHODS[name]
    run = spec(method=method, validation_file="valid.jsonl", lora=LoraOptions(rank=4, alpha=8, dropout=0.1))
    whole = told_by(run, rows=rows, folder=tmp_path / "whole", model=model)
    first = told_by(run, rows=rows, folder=tmp_path / "first", model=model, pause_after=2)
    assert isinstance(first[-1], RunPaused) and first[-1].step == 2
    kept = last_checkpoint(first)
    assert (kept.step, kept.final) == (2, False)
    assert {file.name for file in kept.files} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "training_state.safetensors",
    }
    (tmp_path / "second").mkdir()
    shutil.copytree(tmp_path / "first/checkpoints/step-2", tmp_path / "second/resume")
    resumed = spec(**{**vars(run), "start_step": 2, "attempt": 2})
    second = told_by(resumed, rows=rows, folder=tmp_path / "second", model=model)
    assert last_checkpoint(second).files == last_checkpoint(whole).files
    assert second[-1] == whole[-1] and isinstance(whole[-1], RunFinished)
    steps = [[e.metrics for e in told if isinstance(e, StepDone)] for told in (whole, first + second)]
    assert steps[0] == steps[1], "every metric of every step too"


def test_the_best_weights_have_their_own_metrics_after_a_pause_too(model: Model, tmp_path: Path) -> None:
    """The validation file holds answers that the training file teaches to forget: the first step is the best."""
    unlike = [{"messages": [ROWS[0]["messages"][0], {"role": "assistant", "content": "zzz"}]}]
    method = Supervised(n_epochs=4, batch_size=4, learning_rate_multiplier=30.0)
    options = TrainingOptions(best_checkpoint=True)
    run = spec(method=method, validation_file="valid.jsonl", training=options)
    given: dict[str, Any] = {"rows": ROWS[:4], "valid": unlike, "model": model}
    whole = told_by(run, folder=tmp_path / "whole", **given)
    steps = [event.metrics for event in whole if isinstance(event, StepDone)]
    best = min(steps, key=lambda metrics: metrics.full_valid_loss or 0.0)
    assert best.step < 3 and last_checkpoint(whole).metrics == replace(best, step=4)
    told_by(run, folder=tmp_path / "first", pause_after=3, **given)
    (tmp_path / "second").mkdir()
    shutil.copytree(tmp_path / "first/checkpoints/step-3", tmp_path / "second/resume")
    resumed = replace(run, start_step=3, attempt=2)
    second = told_by(resumed, folder=tmp_path / "second", **given)
    assert last_checkpoint(second) == last_checkpoint(whole)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_from_a_tuned_model(name: str, model: Model, tmp_path: Path) -> None:
    """Its first step sees the tuned model; preferences are measured against it; a pause costs no bit here either."""
    tuned = told_by(spec(method=METHODS["supervised"][0]), rows=ROWS, folder=tmp_path / "tuned", model=model)
    method, rows = METHODS[name]
    run = spec(method=method, validation_file="valid.jsonl", starts_tuned=True, seed=5)
    source = tmp_path / f"tuned/checkpoints/step-{last_checkpoint(tuned).step}"
    for folder in ("whole", "first", "second"):
        shutil.copytree(source, tmp_path / folder / "initial")
    whole = told_by(run, rows=rows, folder=tmp_path / "whole", model=model)
    told_by(run, rows=rows, folder=tmp_path / "first", model=model, pause_after=2)
    shutil.copytree(tmp_path / "first/checkpoints/step-2", tmp_path / "second/resume")
    resumed = spec(**{**vars(run), "start_step": 2, "attempt": 2})
    second = told_by(resumed, rows=rows, folder=tmp_path / "second", model=model)
    assert last_checkpoint(second).files == last_checkpoint(whole).files
    steps = [e.metrics for e in whole if isinstance(e, StepDone)]
    if name == "supervised":
        before = [e.metrics for e in tuned if isinstance(e, StepDone)]
        assert steps[0].train_loss < before[0].train_loss - 0.05
    if name == "dpo":
        assert steps[0].train_loss == pytest.approx(0.6931, abs=0.01), "the tuned model is the reference"


def test_a_run_that_is_paused_before_its_first_step_keeps_nothing(model: Model, tmp_path: Path) -> None:
    live = live_run(spec(), folder=prepared(tmp_path / "a"), model=model)
    live.run.control.pausing = True
    assert story(live, model=model)[-1] == RunPaused(step=0)


def test_the_last_step_is_not_paused(model: Model, tmp_path: Path) -> None:
    method, rows = METHODS["supervised"]
    told = told_by(spec(method=method), rows=rows, folder=tmp_path / "a", model=model, pause_after=6)
    assert isinstance(told[-1], RunFinished) and last_checkpoint(told).final


def test_dpo_learns_to_prefer(model: Model, tmp_path: Path) -> None:
    method = Dpo(n_epochs=8, batch_size=5, learning_rate_multiplier=3.0, beta=0.5)
    run = spec(method=method, validation_file="valid.jsonl")
    steps = [
        e.metrics
        for e in told_by(run, rows=PAIRS, folder=tmp_path / "a", model=model)
        if isinstance(e, StepDone)
    ]
    assert steps[0].train_loss == pytest.approx(0.6931, abs=0.05), "ln 2: policy and reference are one"
    assert steps[-1].train_loss < 0.5 and steps[-1].extra["train_reward_accuracy"] == 1.0
    assert steps[-1].extra["full_valid_reward_margin"] > 0


def test_two_equal_answers_are_no_preference(model: Model, tmp_path: Path) -> None:
    rows = [PAIRS[0], {**PAIRS[1], "non_preferred_output": PAIRS[1]["preferred_output"]}]
    (failed,) = told_by(spec(method=METHODS["dpo"][0]), rows=rows, folder=tmp_path / "a", model=model)
    assert isinstance(failed, RunFailed) and "Example 2 (line 2) has two equal answers" in failed.message


def test_rewards_grow(tiny_model: Path, tmp_path: Path) -> None:
    base = load(tiny_model, name="tiny")
    base.causal_lm.lm_head.weight.data *= 10  # a random head is so flat that no adapter could choose
    model = model_of(base, max_tokens=MAX_TOKENS, most_runs=1)
    method = reinforcement(n_epochs=7, batch_size=4, compute_multiplier=1.0, eval_interval=100)
    run = spec(method=method, lora=LoraOptions(rank=8, alpha=16))
    told = told_by(run, rows=PROMPTS, folder=tmp_path / "a", model=model)
    rewards = [e.metrics.extra["train_mean_reward"] for e in told if isinstance(e, StepDone)]
    assert sum(rewards[-2:]) / 2 > rewards[0] + 0.3, rewards


def test_a_long_prompt_cuts_no_answers_but_its_own(chat: ChatFormat) -> None:
    """Each prompt is asked with its own limit, and the others' seeds do not depend on how long it is."""
    chat = replace(chat, max_tokens=400)
    texts = ["a", "b", "c" * 340, "d", "e" * 300]

    def asked(texts: list[str]) -> dict[str, Sample]:
        rows = [{"messages": [{"role": "user", "content": text}], "answer": "a"} for text in texts]
        prompts = [encode_prompt(row, chat=chat, room=16) for row in rows]
        method = reinforcement(batch_size=5)
        objective = ReinforcementObjective(prompts, [], method=method, chat=chat, seed=3)
        works = next(objective.gradients(range(len(texts)), StepContext(step=0, seed=0, budget=64)))
        owners = {prompt.token_ids: text for prompt, text in zip(prompts, texts, strict=True)}
        samples = [work for work in works if isinstance(work, Sample)]
        return {owners[tuple(ids)]: sample for sample in samples for ids in sample.prompts}

    found = asked(texts)
    room = {text: chat.max_tokens - len(found[text].prompts[0]) for text in (texts[2], texts[4])}
    limits = [found[text].sampling.max_tokens for text in texts]
    assert limits == [MAX_ANSWER_TOKENS, MAX_ANSWER_TOKENS, room[texts[2]], MAX_ANSWER_TOKENS, room[texts[4]]]
    assert asked(texts) == found
    short = asked(["a", "b"])
    assert short["a"].sampling == found["a"].sampling and short["a"] is short["b"]
    seeds = {sample.sampling.seed for sample in found.values()}
    assert len(seeds) == 3, "no two samples draw alike"


def test_prompts_of_one_limit_are_asked_in_their_order() -> None:
    assert together([256] * 5, at_once=2) == [[0, 1], [2, 3], [4]]
    assert together([256, 20, 256, 30, 20, 256], at_once=2) == [[0, 2], [5], [1, 4], [3]]


def test_a_grader_that_fails_on_everything_ends_the_run(model: Model, tmp_path: Path) -> None:
    grader = PythonGrader(name="p", source="def grade(sample, item):\n    raise RuntimeError('broken')\n")
    run = spec(method=reinforcement(grader=grader))
    failed = told_by(run, rows=PROMPTS, folder=tmp_path / "a", model=model)[-1]
    assert isinstance(failed, RunFailed) and failed.code == "grader_error" and "broken" in failed.message


def test_the_grading_of_a_cancelled_run_gives_its_thread_back(model: Model, tmp_path: Path) -> None:
    """In a moment, although its samples would take a minute each; and what has not begun never does."""
    grader = PythonGrader(name="p", source="import time\n\ndef grade(sample, item):\n    time.sleep(60)\n")
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/train.jsonl", PROMPTS)
    run = spec(method=reinforcement(grader=grader, batch_size=4))
    live = live_run(run, folder=tmp_path / "a", model=model, max_tokens=MAX_TOKENS)
    woken = Event()
    rounds = rounds_of(model, woken)
    told: list[TrainEvent] = []
    while not (told and any(task.running() for task in live.tasks.values())):  # it samples in no thread
        if not rounds.round([live]):
            woken.wait(timeout=0.05)
        told += said(live)
    (grading,) = live.tasks.values()
    time.sleep(1.0)  # in its sandbox
    assert grading.running()
    not_begun = live.tasks[99] = Future[object]()
    live.close()
    rounds.leave(live)
    with pytest.raises(GoneError):
        grading.result(timeout=20)
    assert not_begun.cancelled()


def test_a_model_grader_is_the_base_model(model: Model, tmp_path: Path) -> None:
    grader = ScoreModel(
        name="s",
        model="tiny",
        input=(GraderMessage(role="user", content="rate"),),
        sampling_params={"max_completions_tokens": 8},
    )
    run = spec(method=reinforcement(n_epochs=1, batch_size=4, grader=grader))
    told = told_by(run, rows=PROMPTS, folder=tmp_path / "a", model=model)
    assert isinstance(told[-1], RunFinished)


def test_a_schema_that_binds_nothing_is_the_jobs_fault(model: Model, tmp_path: Path) -> None:
    wrapped = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "magic"}}}
    run = spec(method=reinforcement(response_format=wrapped))
    (failed,) = told_by(run, rows=PROMPTS, folder=tmp_path / "a", model=model)
    assert isinstance(failed, RunFailed) and "cannot be used to bind answers" in failed.message
    assert failed.param == "method.reinforcement.response_format"


def test_groups_and_advantages() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert advantages([0.1] * 3) == [0.0] * 3, "equal rewards teach nothing, not even rounding"
    assert (group_size(1e-5), group_size(1.0), group_size(10.0)) == (2, 8, 64)
