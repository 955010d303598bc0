"""TRL's trainers on token ids, watched from outside: what a run of ours is compared with. Importing TRL takes seconds.

Settings where both sides define the same run: float32, no activation checkpointing, the file's order, AdamW with our
betas, the linear schedule to 0 without warm-up. What TRL does otherwise by default: bfloat16, activation checkpointing,
beta2 0.999, a shuffle of its own, a warm-up whose first step has a rate of 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from engine.contract.spec import LoraOptions, TrainingOptions
from engine.core.packing import Tokens
from engine.data.pairs import Pair
from engine.lora.attached import lora_config
from engine.lora.optimizer import BETAS

Row = dict[str, Any]
Tensors = Mapping[str, torch.Tensor]
disable_progress_bars()


@dataclass
class Watch(TrainerCallback):
    """Of each step the loss, the gradient as it was clipped, and its norm before; and the validation losses."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: list[Tensors] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)

    def on_pre_optimizer_step(self, *args: Any, model: PeftModel, **kwargs: Any) -> None:
        found = {
            name.replace(".default", ""): parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        self.gradients.append(found)

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.norms.append(logs["grad_norm"])
        if "eval_loss" in logs:
            self.validations.append(logs["eval_loss"])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`micro`: examples of a forward; `batch`: of a step; `validate_every`: steps, where there are rows for it."""

    model: Any
    tokenizer: Any
    start: Tensors
    lora: LoraOptions
    training: TrainingOptions
    peak: float
    batch: int
    micro: int
    folder: Path
    validate_every: int = 0


def arguments(plan: Plan, *, validation_rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "output_dir": str(plan.folder),
        "per_device_train_batch_size": plan.micro,
        "gradient_accumulation_steps": plan.batch // plan.micro,
        "num_train_epochs": 1,  # the rows hold all epochs, in our order
        "learning_rate": plan.peak,
        "lr_scheduler_type": "linear",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": plan.training.weight_decay,
        "max_grad_norm": plan.training.max_grad_norm,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "max_length": None,
    }
    if plan.validate_every:
        found |= {
            "eval_strategy": "steps",
            "eval_steps": plan.validate_every,
            "per_device_eval_batch_size": validation_rows,  # a mean over batches would weigh their tokens unequally
        }
    return found


def trained(kind: Any, config: Any, plan: Plan, rows: Sequence[Row], valid: Sequence[Row] = ()) -> Watch:
    with torch.random.fork_rng():  # the trainer seeds the global generator
        trainer = kind(
            model=plan.model,
            args=config,
            train_dataset=Dataset.from_list(list(rows)),
            eval_dataset=Dataset.from_list(list(valid)) if valid else None,
            processing_class=plan.tokenizer,
            peft_config=lora_config(plan.lora),
        )
        set_peft_model_state_dict(trainer.model, {name: value.clone() for name, value in plan.start.items()})
        trainer.remove_callback(PrinterCallback)
        watch = Watch()
        trainer.add_callback(watch)
        trainer.train()
    watch.weights = get_peft_model_state_dict(trainer.model)
    return watch


def sft(plan: Plan, examples: Sequence[Tokens], valid: Sequence[Tokens]) -> Watch:
    """TRL's own loss: over the tokens of the whole step, however it is cut into forwards."""
    more = arguments(plan, validation_rows=len(valid))
    config = SFTConfig(**more, dataset_kwargs={"skip_prepare_dataset": True})
    rows, others = ([labelled(one) for one in some] for some in (examples, valid))
    return trained(SFTTrainer, config, plan, rows, others)


def labelled(one: Tokens) -> Row:
    labels = [token if weight else -100 for token, weight in zip(one.token_ids, one.weights, strict=True)]
    return {"input_ids": list(one.token_ids), "labels": labels}


class Prepared:
    """The rows are token ids already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def tokenize_row(self, feature: Row, *args: Any, **kwargs: Any) -> Row:
        return feature


class PreparedDpo(Prepared, DPOTrainer):
    pass


class PreparedKto(Prepared, KTOTrainer):
    pass


class PreparedCpo(Prepared, CPOTrainer):
    pass


class AnswersOrpo(Prepared, ORPOTrainer):
    """TRL's supervised term reads the prompt too, and its mean is over all tokens of a forward. The paper's (and ours)
    is the mean ln p of each preferred answer, which TRL has computed for the odds already."""

    def concatenated_forward(self, model: Any, batch: Any) -> Any:
        chosen, rejected, *logits, _ = super().concatenated_forward(model, batch)
        return chosen, rejected, *logits, -chosen.mean()


def dpo(plan: Plan, pairs: Sequence[Pair], valid: Sequence[Pair], **options: Any) -> Watch:
    config = DPOConfig(**arguments(plan, validation_rows=len(valid)), **options)
    return trained(PreparedDpo, config, plan, *([split(one) for one in some] for some in (pairs, valid)))


def split(pair: Pair) -> Row:
    prompt = min(pair.preferred.prompt_length, pair.other.prompt_length)
    return {
        "prompt_ids": list(pair.preferred.token_ids[:prompt]),
        "chosen_ids": list(pair.preferred.token_ids[prompt:]),
        "rejected_ids": list(pair.other.token_ids[prompt:]),
    }


def kto(plan: Plan, pairs: Sequence[Pair], valid: Sequence[Pair], **options: Any) -> Watch:
    """TRL's examples have one answer each, and its KL term pairs each prompt with the answer before it in the forward.

    Of pairs 1 to N a step reads w_N .. w_1, l_N .. l_1: so prompt i meets both answers of pair i + 1, the last one those
    of the first, which is our reference point (`engine.core.preferences.reference_point`).
    """
    size = plan.batch // 2
    train, held = (
        [row for start in range(0, len(some), size) for row in rotated(some[start : start + size])]
        for some in (pairs, valid)
    )
    config = KTOConfig(**arguments(plan, validation_rows=len(valid)), **options)
    return trained(PreparedKto, config, plan, train, held)


def rotated(pairs: Sequence[Pair]) -> list[Row]:
    parts = [split(pair) for pair in reversed(pairs)]
    rows = [
        {"prompt_ids": part["prompt_ids"], "completion_ids": part[which], "label": which == "chosen_ids"}
        for which in ("chosen_ids", "rejected_ids")
        for part in parts
    ]
    before = [rows[-1], *rows[:-1]]
    return [
        row | {"KL_completion_ids": last["completion_ids"]} for row, last in zip(rows, before, strict=True)
    ]


def simpo(plan: Plan, pairs: Sequence[Pair], valid: Sequence[Pair], **options: Any) -> Watch:
    config = CPOConfig(
        **arguments(plan, validation_rows=len(valid)), loss_type="simpo", cpo_alpha=0.0, **options
    )
    return trained(
        PreparedCpo, config, plan, *([side_by_side(one) for one in some] for some in (pairs, valid))
    )


def orpo(plan: Plan, pairs: Sequence[Pair], valid: Sequence[Pair], **options: Any) -> Watch:
    config = ORPOConfig(**arguments(plan, validation_rows=len(valid)), **options)
    return trained(
        AnswersOrpo, config, plan, *([side_by_side(one) for one in some] for some in (pairs, valid))
    )


def side_by_side(pair: Pair) -> Row:
    found = {}
    for name, one in (("chosen", pair.preferred), ("rejected", pair.other)):
        row = labelled(one)
        found |= {
            f"{name}_input_ids": row["input_ids"],
            f"{name}_labels": row["labels"],
            f"{name}_attention_mask": [1] * len(row["input_ids"]),
        }
    return found
