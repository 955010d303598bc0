"""A run on a tiny model: right gradients, right weights, right bits, right export."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from engine.contract.events import CheckpointReady, RunFinished, RunPrepared, StepDone, TrainEvent
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.core.batches import derived_seed, epoch_batches, micro_batches
from engine.data.chat import ChatFormat, encode
from engine.data.errors import DataError
from engine.lora import adapter
from engine.methods import sft
from engine.models.resident import ResidentModel, load
from engine.trainer.run import train

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
def base(tiny_model: Path) -> ResidentModel:
    return load(tiny_model, name="tiny")


@pytest.fixture
def chat(base: ResidentModel) -> ChatFormat:
    return ChatFormat(tokenizer=base.tokenizer, end_of_turn=base.end_of_turn, max_tokens=512, model=base.name)


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


def events(run: RunSpec, *, folder: Path, base: ResidentModel) -> Iterator[TrainEvent]:
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    write(folder / "valid.jsonl", ROWS[:3])
    return train(run, folder=folder, base=base, max_tokens=512)


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


def test_gradients_equal_peft_and_transformers(
    tiny_model: Path, base: ResidentModel, chat: ChatFormat
) -> None:
    examples = [encode(row, chat=chat) for row in ROWS[:7]]
    ours = adapter.attach(base.causal_lm, options=LoraOptions(rank=4, alpha=8), seed=1)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    targets = list(LoraOptions().target_modules)
    theirs = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    for model in (ours, theirs):
        generator = torch.Generator().manual_seed(3)
        for parameter in adapter.trainable(model):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    batch = sft.collate(examples, device=base.device)
    (sft.loss_sums(base.causal_lm, batch).loss / sft.batch_weight(examples)).backward()
    longest = max(len(e.token_ids) for e in examples)
    ids = torch.tensor([[*e.token_ids, *[0] * (longest - len(e.token_ids))] for e in examples])
    mask = torch.tensor([[1] * len(e.token_ids) + [0] * (longest - len(e.token_ids)) for e in examples])
    labels = torch.tensor(
        [
            [t if w else -100 for t, w in zip(e.token_ids, e.weights, strict=True)]
            + [-100] * (longest - len(e.token_ids))
            for e in examples
        ]
    )
    theirs(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    for a, b in zip(adapter.trainable(ours), adapter.trainable(theirs), strict=True):
        assert a.grad is not None and b.grad is not None
        assert float((a.grad - b.grad).norm()) <= 1e-5 * float(b.grad.norm())
    adapter.detach(ours)


def test_a_run_tells_its_story_in_order(base: ResidentModel, tmp_path: Path) -> None:
    story = list(events(spec(validation_file="valid.jsonl"), folder=tmp_path / "a", base=base))
    assert isinstance(story[0], RunPrepared) and story[0].total_steps == 6
    steps = [event.metrics for event in story if isinstance(event, StepDone)]
    assert [metrics.step for metrics in steps] == [1, 2, 3, 4, 5, 6]
    assert [m.step for m in steps if m.full_valid_loss is not None] == [3, 6]
    assert all(m.valid_loss is not None for m in steps)
    checkpoints = [event for event in story if isinstance(event, CheckpointReady)]
    assert [(c.step, c.final) for c in checkpoints] == [(3, False), (6, True)]
    assert isinstance(story[-1], RunFinished)
    assert story[-1].trained_tokens == 2 * story[0].tokens_per_epoch


def digest(run: RunSpec, *, folder: Path, base: ResidentModel) -> str:
    story = list(events(run, folder=folder, base=base))
    return next(e for e in story if isinstance(e, CheckpointReady) and e.final).files[0].sha256


def test_a_seed_decides_every_bit(base: ResidentModel, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = digest(spec(), folder=tmp_path / "a", base=base)
    torch.manual_seed(2)  # whatever else used the global generator
    assert digest(spec(), folder=tmp_path / "b", base=base) == first
    assert digest(spec(seed=8), folder=tmp_path / "c", base=base) != first


def test_plain_peft_gives_the_probed_logprobs(tiny_model: Path, base: ResidentModel, tmp_path: Path) -> None:
    story = list(events(spec(), folder=tmp_path / "a", base=base))
    last = next(e for e in story if isinstance(e, CheckpointReady) and e.final)
    folder = tmp_path / "a/checkpoints/step-6"
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, folder)
    assert last.probe is not None
    ids = torch.tensor([last.probe.token_ids])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked = logprobs.gather(1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(picked, torch.tensor(last.probe.logprobs), rtol=1e-4, atol=1e-4)


def test_an_abandoned_run_leaves_the_base_as_it_was(base: ResidentModel, tmp_path: Path) -> None:
    before = [name for name, _ in base.causal_lm.named_parameters()]
    run = events(spec(), folder=tmp_path / "a", base=base)
    next(run), next(run)
    run.close()  # type: ignore[attr-defined]
    assert [name for name, _ in base.causal_lm.named_parameters()] == before


def test_an_unknown_module_is_named(base: ResidentModel, tmp_path: Path) -> None:
    run = events(spec(lora=LoraOptions(target_modules=("wq",))), folder=tmp_path / "a", base=base)
    with pytest.raises(DataError, match="no module named wq; it has down_proj"):
        next(run)


def test_batches_hold_every_example_once_and_little_padding() -> None:
    batches = epoch_batches(examples=11, batch_size=4, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(11))
    assert batches != epoch_batches(examples=11, batch_size=4, seed=1, epoch=1)
    groups = micro_batches([0, 1, 2, 3], lengths=[10, 90, 10, 80], token_budget=180)
    assert groups == [[1, 3], [0, 2]]
    assert derived_seed(1, "a") != derived_seed(1, "b")
