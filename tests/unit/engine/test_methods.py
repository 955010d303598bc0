"""Preferences, rewards, and going on from a checkpoint: losses against their formulas, bits against an undisturbed run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from engine.contract.events import CheckpointReady, RunFinished, RunPaused, StepDone, TrainEvent
from engine.contract.graders import GraderMessage, PythonGrader, ScoreModel, StringCheck
from engine.contract.spec import Dpo, LoraOptions, Method, Reinforcement, RunSpec, Supervised
from engine.data.chat import ChatFormat
from engine.data.errors import DataError
from engine.data.pairs import encode_pair
from engine.lora import adapter
from engine.methods.dpo import DpoObjective
from engine.methods.objective import Policy
from engine.methods.reinforcement import GraderFailedError, advantages, group_size
from engine.models.resident import ResidentModel, load
from engine.models.sampling import Sampling, sample
from engine.trainer.run import RunControl, train
from tests.unit.engine.test_run import ROWS, spec, write

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
def base(tiny_model: Path) -> ResidentModel:
    return load(tiny_model, name="tiny")


@pytest.fixture
def chat(base: ResidentModel) -> ChatFormat:
    return ChatFormat(
        tokenizer=base.tokenizer, end_of_turn=base.end_of_turn, max_tokens=MAX_TOKENS, model=base.name
    )


def story(
    run: RunSpec,
    *,
    rows: list[dict[str, Any]],
    folder: Path,
    base: ResidentModel,
    pause_after: int | None = None,
) -> list[TrainEvent]:
    folder.mkdir(exist_ok=True)
    write(folder / "train.jsonl", rows)
    write(folder / "valid.jsonl", rows[:2])
    control, told = RunControl(), []
    for event in train(run, folder=folder, base=base, max_tokens=MAX_TOKENS, control=control):
        told.append(event)
        if isinstance(event, StepDone) and event.metrics.step == pause_after:
            control.pausing = True
    return told


def last_checkpoint(told: list[TrainEvent]) -> CheckpointReady:
    return [event for event in told if isinstance(event, CheckpointReady)][-1]


@pytest.mark.parametrize("name", METHODS)
def test_a_paused_run_ends_with_the_bits_of_an_undisturbed_one(
    name: str, base: ResidentModel, tmp_path: Path
) -> None:
    method, rows = METHODS[name]
    run = spec(method=method, validation_file="valid.jsonl", lora=LoraOptions(rank=4, alpha=8, dropout=0.1))
    whole = story(run, rows=rows, folder=tmp_path / "whole", base=base)
    first = story(run, rows=rows, folder=tmp_path / "first", base=base, pause_after=2)
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
    second = story(resumed, rows=rows, folder=tmp_path / "second", base=base)
    assert last_checkpoint(second).files[0].sha256 == last_checkpoint(whole).files[0].sha256
    assert second[-1] == whole[-1] and isinstance(whole[-1], RunFinished)
    steps = [[e.metrics for e in told if isinstance(e, StepDone)] for told in (whole, first + second)]
    assert steps[0] == steps[1], "every metric of every step too"


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_from_a_tuned_model(name: str, base: ResidentModel, tmp_path: Path) -> None:
    """Its first step sees the tuned model; preferences are measured against it; a pause costs no bit here either."""
    tuned = story(spec(method=METHODS["supervised"][0]), rows=ROWS, folder=tmp_path / "tuned", base=base)
    method, rows = METHODS[name]
    run = spec(method=method, validation_file="valid.jsonl", starts_tuned=True, seed=5)
    source = tmp_path / f"tuned/checkpoints/step-{last_checkpoint(tuned).step}"
    for folder in ("whole", "first", "second"):
        shutil.copytree(source, tmp_path / folder / "initial")
    whole = story(run, rows=rows, folder=tmp_path / "whole", base=base)
    story(run, rows=rows, folder=tmp_path / "first", base=base, pause_after=2)
    shutil.copytree(tmp_path / "first/checkpoints/step-2", tmp_path / "second/resume")
    resumed = spec(**{**vars(run), "start_step": 2, "attempt": 2})
    second = story(resumed, rows=rows, folder=tmp_path / "second", base=base)
    assert last_checkpoint(second).files[0].sha256 == last_checkpoint(whole).files[0].sha256
    steps = [e.metrics for e in whole if isinstance(e, StepDone)]
    if name == "supervised":
        before = [e.metrics for e in tuned if isinstance(e, StepDone)]
        assert steps[0].train_loss < before[0].train_loss - 0.05
    if name == "dpo":
        assert steps[0].train_loss == pytest.approx(0.6931, abs=0.01), "the tuned model is the reference"


def test_a_run_that_is_paused_before_its_first_step_keeps_nothing(
    base: ResidentModel, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/train.jsonl", ROWS)
    told = list(
        train(
            spec(), folder=tmp_path / "a", base=base, max_tokens=MAX_TOKENS, control=RunControl(pausing=True)
        )
    )
    assert told[1:] == [RunPaused(step=0)]


def test_the_last_step_is_not_paused(base: ResidentModel, tmp_path: Path) -> None:
    method, rows = METHODS["supervised"]
    told = story(spec(method=method), rows=rows, folder=tmp_path / "a", base=base, pause_after=6)
    assert isinstance(told[-1], RunFinished) and last_checkpoint(told).final


def test_dpo_loss_and_gradient_are_the_formula(base: ResidentModel, chat: ChatFormat) -> None:
    """Against plain log-softmax over whole sequences, one by one, with the adapter switched by peft."""
    model = adapter.attach(base.causal_lm, options=LoraOptions(rank=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(3)
    for parameter in adapter.trainable(model):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    pairs = [encode_pair(row, chat=chat) for row in PAIRS[:5]]
    objective = DpoObjective(pairs, [], beta=0.3)
    score = objective.gradients(Policy(base=base, adapted=model), range(5), step=0)
    ours = [p.grad.clone() for p in adapter.trainable(model) if p.grad is not None]
    for parameter in adapter.trainable(model):
        parameter.grad = None

    def total(example: Any) -> torch.Tensor:
        ids = torch.tensor([example.token_ids])
        logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        picked = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        return (picked * torch.tensor(example.weights[1:])).sum()

    losses = []
    for pair in pairs:
        with model.disable_adapter(), torch.no_grad():
            reference = total(pair.preferred) - total(pair.other)
        losses.append(-F.logsigmoid(0.3 * (total(pair.preferred) - total(pair.other) - reference)))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert score.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for mine, parameter in zip(ours, adapter.trainable(model), strict=True):
        assert parameter.grad is not None
        assert float((mine - parameter.grad).norm()) <= 1e-4 * float(parameter.grad.norm())
    adapter.detach(model)


def test_dpo_learns_to_prefer(base: ResidentModel, tmp_path: Path) -> None:
    method = Dpo(n_epochs=8, batch_size=5, learning_rate_multiplier=3.0, beta=0.5)
    run = spec(method=method, validation_file="valid.jsonl")
    steps = [
        e.metrics for e in story(run, rows=PAIRS, folder=tmp_path / "a", base=base) if isinstance(e, StepDone)
    ]
    assert steps[0].train_loss == pytest.approx(0.6931, abs=0.05), "ln 2: policy and reference are one"
    assert steps[-1].train_loss < 0.5 and steps[-1].extra["train_reward_accuracy"] == 1.0
    assert steps[-1].extra["full_valid_reward_margin"] > 0


def test_two_equal_answers_are_no_preference(base: ResidentModel, tmp_path: Path) -> None:
    rows = [PAIRS[0], {**PAIRS[1], "non_preferred_output": PAIRS[1]["preferred_output"]}]
    with pytest.raises(DataError, match=r"Example 2 \(line 2\) has two equal answers"):
        story(spec(method=METHODS["dpo"][0]), rows=rows, folder=tmp_path / "a", base=base)


def test_rewards_grow(tiny_model: Path, tmp_path: Path) -> None:
    base = load(tiny_model, name="tiny")
    base.causal_lm.lm_head.weight.data *= 10  # a random head is so flat that no adapter could choose
    method = reinforcement(n_epochs=7, batch_size=4, compute_multiplier=1.0, eval_interval=100)
    run = spec(method=method, lora=LoraOptions(rank=8, alpha=16))
    told = story(run, rows=PROMPTS, folder=tmp_path / "a", base=base)
    rewards = [e.metrics.extra["train_mean_reward"] for e in told if isinstance(e, StepDone)]
    assert sum(rewards[-2:]) / 2 > rewards[0] + 0.3, rewards


def test_a_grader_that_fails_on_everything_ends_the_run(base: ResidentModel, tmp_path: Path) -> None:
    grader = PythonGrader(name="p", source="def grade(sample, item):\n    raise RuntimeError('broken')\n")
    run = spec(method=reinforcement(grader=grader))
    with pytest.raises(GraderFailedError) as found:
        story(run, rows=PROMPTS, folder=tmp_path / "a", base=base)
    assert "broken" in found.value.details


def test_a_model_grader_is_the_base_model(base: ResidentModel, tmp_path: Path) -> None:
    grader = ScoreModel(
        name="s",
        model="tiny",
        input=(GraderMessage(role="user", content="rate"),),
        sampling_params={"max_completions_tokens": 8},
    )
    run = spec(method=reinforcement(n_epochs=1, batch_size=4, grader=grader))
    told = story(run, rows=PROMPTS, folder=tmp_path / "a", base=base)
    assert isinstance(told[-1], RunFinished)


def test_an_answer_keeps_to_its_schema(base: ResidentModel) -> None:
    fields = {"properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    schema = json.dumps({"type": "object", **fields})
    prompt = base.tokenizer.encode("x")
    sampling = Sampling(max_tokens=64, seed=1, schema=schema)
    (answers,) = sample(base, [prompt], count=3, sampling=sampling, end_of_turn=base.end_of_turn)
    assert all(json.loads(answer.text)["ok"] in (True, False) for answer in answers if answer.whole)
    assert all(answer.text.startswith("{") for answer in answers)
    (again,) = sample(base, [prompt], count=3, sampling=sampling, end_of_turn=base.end_of_turn)
    assert answers == again, "a seed decides"


def test_a_prompt_answers_alike_alone_and_beside_a_longer_one(base: ResidentModel) -> None:
    sampling = Sampling(max_tokens=12, seed=1, temperature=0)
    short, long = base.tokenizer.encode("ab"), base.tokenizer.encode("a much longer one")
    alone = [
        sample(base, [prompt], count=1, sampling=sampling, end_of_turn=base.end_of_turn)[0]
        for prompt in (short, long)
    ]
    assert sample(base, [short, long], count=1, sampling=sampling, end_of_turn=base.end_of_turn) == alone, (
        "padding on the left is not seen"
    )


def test_a_schema_that_binds_nothing_is_the_jobs_fault(base: ResidentModel, tmp_path: Path) -> None:
    wrapped = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "magic"}}}
    run = spec(method=reinforcement(response_format=wrapped))
    with pytest.raises(DataError, match="cannot be used to bind answers") as refused:
        story(run, rows=PROMPTS, folder=tmp_path / "a", base=base)
    assert refused.value.param == "method.reinforcement.response_format"


def test_groups_and_advantages() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert (group_size(1e-5), group_size(1.0), group_size(10.0)) == (2, 8, 64)
