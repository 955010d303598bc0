"""A run on a tiny model: right gradients, right weights, right bits, right export."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from engine.contract.events import CheckpointReady, RunFailed, RunFinished, RunPrepared, StepDone, TrainEvent
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.core.batches import derived_seed, epoch_batches
from engine.data.chat import ChatFormat, encode
from engine.lora.adapter import config_json
from engine.lora.attached import lora_config
from engine.models.resident import load
from engine.passes.choose import model_of
from engine.passes.model import Lesson, Model, Outcome
from engine.trainer.objectives import chat_of
from tests.support.training import live_run, story

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"say {n}"},
            {"role": "assistant", "content": "yes " * (n % 4 + 1)},
        ]
    }
    for n in range(12)
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return model_of(load(tiny_model, name="tiny"), max_tokens=512, most_runs=4)


@pytest.fixture
def chat(model: Model) -> ChatFormat:
    return chat_of(model.base, max_tokens=512)


def spec(**changes: object) -> RunSpec:
    fields: dict[str, object] = {
        "job_id": "ftjob-1",
        "attempt": 1,
        "base_model": "tiny",
        "method": Supervised(n_epochs=2, batch_size=5, learning_rate_multiplier=1.0),
        "lora": LoraOptions(rank=4, alpha=8, dropout=0.1),
        "seed": 7,
    }
    return RunSpec(**(fields | changes))  # type: ignore[arg-type]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(folder: Path, rows: list[dict[str, object]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    write(folder / "train.jsonl", rows)
    write(folder / "valid.jsonl", rows[:3])
    return folder


def events(run: RunSpec, *, folder: Path, model: Model) -> list[TrainEvent]:
    return story(live_run(run, folder=prepared(folder), model=model), model=model)


def test_loss_is_on_the_answer_and_its_end_alone(chat: ChatFormat) -> None:
    row = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "not this", "weight": 0},
            {"role": "user", "content": "v"},
            {"role": "assistant", "content": "but this"},
        ]
    }
    example = encode(row, chat=chat)
    learned = [t for t, w in zip(example.token_ids, example.weights, strict=True) if w]
    assert chat.tokenizer.decode(learned) == "but this<|im_end|>"
    assert example.token_ids[-1] in chat.end_of_turn


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant message"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 600}]},
            "the limit of tiny is 512",
        ),
        (
            {
                "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
            "uses tools",
        ),
    ],
)
def test_a_row_that_cannot_be_learned_says_why(row: dict[str, object], reason: str, chat: ChatFormat) -> None:
    with pytest.raises(ValueError, match=reason):
        encode(row, chat=chat)


def test_a_run_tells_its_story_in_order(model: Model, tmp_path: Path) -> None:
    told = events(spec(validation_file="valid.jsonl"), folder=tmp_path / "a", model=model)
    prepared_event = next(e for e in told if isinstance(e, RunPrepared))
    assert prepared_event.total_steps == 6
    steps = [event.metrics for event in told if isinstance(event, StepDone)]
    assert [metrics.step for metrics in steps] == [1, 2, 3, 4, 5, 6]
    assert [m.step for m in steps if m.full_valid_loss is not None] == [3, 6]
    assert all(m.valid_loss is not None for m in steps)
    checkpoints = [event for event in told if isinstance(event, CheckpointReady)]
    assert [(c.step, c.final) for c in checkpoints] == [(3, False), (6, True)]
    assert isinstance(told[-1], RunFinished)
    assert told[-1].trained_tokens == 2 * prepared_event.tokens_per_epoch


def digest(run: RunSpec, *, folder: Path, model: Model) -> str:
    told = events(run, folder=folder, model=model)
    return next(e for e in told if isinstance(e, CheckpointReady) and e.final).files[0].sha256


def test_a_seed_decides_every_bit(model: Model, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = digest(spec(), folder=tmp_path / "a", model=model)
    torch.manual_seed(2)  # whatever else used the global generator
    assert digest(spec(), folder=tmp_path / "b", model=model) == first
    assert digest(spec(seed=8), folder=tmp_path / "c", model=model) != first


def test_plain_peft_gives_the_probed_logprobs(tiny_model: Path, model: Model, tmp_path: Path) -> None:
    told = events(spec(), folder=tmp_path / "a", model=model)
    last = next(e for e in told if isinstance(e, CheckpointReady) and e.final)
    folder = tmp_path / "a/checkpoints/step-6"
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, folder)
    assert last.probe is not None
    ids = torch.tensor([last.probe.token_ids])
    with torch.no_grad():
        logprobs = theirs(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked = logprobs.gather(1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(picked, torch.tensor(last.probe.logprobs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        LoraOptions(rank=4, alpha=8),
        LoraOptions(rank=3, alpha=1.5, dropout=0.1, rslora=True, target_modules=("v_proj", "q_proj")),
    ],
)
def test_the_config_says_to_peft_what_its_own_would(options: LoraOptions, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(config_json(options, base_model="tiny"))
    theirs = lora_config(options)
    theirs.base_model_name_or_path, theirs.inference_mode = "tiny", True
    assert LoraConfig.from_pretrained(str(tmp_path)).to_dict() == theirs.to_dict()


def test_an_unknown_module_is_named(model: Model, tmp_path: Path) -> None:
    (failed,) = events(spec(lora=LoraOptions(target_modules=("wq",))), folder=tmp_path / "a", model=model)
    assert isinstance(failed, RunFailed) and failed.param == "lora"
    assert "no module named wq; it has down_proj" in failed.message


def test_batches_hold_every_example_once() -> None:
    batches = epoch_batches(examples=11, batch_size=4, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(11))
    assert batches != epoch_batches(examples=11, batch_size=4, seed=1, epoch=1)
    assert derived_seed(1, "a") != derived_seed(1, "b")


def test_a_system_message_of_all_is_computed_once_and_changes_no_loss(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = {"role": "system", "content": "be brief, be kind, and say yes as often as you are asked to"}
    rows = [{"messages": [begin, *row["messages"]]} for row in ROWS]
    run = spec(lora=LoraOptions(rank=4, alpha=8), validation_file="valid.jsonl")
    passes: list[int] = []
    whole = model.run_pass

    def counted(lessons: Sequence[Lesson]) -> list[Outcome]:
        passes.extend(lesson.packed.tokens for lesson in lessons)
        return whole(lessons)

    monkeypatch.setattr(model, "run_pass", counted)
    found = {}
    for common in (model.common, None):
        monkeypatch.setattr(model, "common", common)
        passes.clear()
        folder = prepared(tmp_path / str(common), rows)
        told = story(live_run(run, folder=folder, model=model), model=model)
        metrics = [event.metrics for event in told if isinstance(event, StepDone)]
        losses = [one.train_loss for one in metrics] + [one.valid_loss for one in metrics]
        found[common] = (losses, sum(passes))
    (shared, few), (apart, many) = found.values()
    assert shared == pytest.approx(apart, rel=1e-4)
    assert few < many / 2
