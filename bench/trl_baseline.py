"""TRL + peft, tuned: one job in a process of its own. Prints one line of JSON.

Tuned means: no activation checkpointing, batches of like lengths (the file's order is made so), log-probabilities of
completion tokens alone and in tiles, the fused AdamW, and none of TRL's metrics (entropy, accuracy, margins): each of
these makes TRL faster. What it computes in and how many examples a forward has are tried by `bench.engine`. Imports
nothing of ours.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")
for package in ("wandb", "mlflow", "tensorboardX", "bitsandbytes", "vllm"):
    sys.modules[package] = None  # type: ignore[assignment]  # TRL's own environment has none: their import takes seconds

import torch  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from peft import LoraConfig, PeftModel  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback, logging  # noqa: E402
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

IMPORTED = time.perf_counter()
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LeanSft(SFTTrainer):
    """The dataset is ready, and the loss is all that is computed."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """Over the tokens of the whole step, as TRL does."""
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        return -outputs.log_probs.sum() / kwargs["num_items_in_batch"]


class LeanDpo(DPOTrainer):
    """The sigmoid loss against the base model, once more without metrics."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        fields = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        fields |= {"labels": labels, "use_cache": False, "fused_lm_head": True}
        own = model(**fields).log_probs.sum(1)
        unwrapped = self.accelerator.unwrap_model(self.model)
        with torch.no_grad(), unwrapped.disable_adapter():
            base = self.model(**fields).log_probs.sum(1)
        chosen, rejected = (own - base).chunk(2)
        return -F.logsigmoid(self.beta * (chosen - rejected)).mean()


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.at: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def _tick(self) -> None:
        self.at.append((time.perf_counter(), time.process_time()))

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._tick()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._tick()

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=["sft", "dpo"], required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True, help="examples of a step")
    parser.add_argument("--micro", type=int, required=True, help="examples of a forward; divides the batch")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--autocast", action="store_true", help="the adapter's products in bfloat16 too")
    parser.add_argument("--adapter", type=Path, help="start from this adapter instead of a random one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    disable_progress_bars()
    rows = [json.loads(line) for line in options.data.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        trainer = made(options, rows, folder)
        clock = Clock()
        trainer.add_callback(clock)
        ready = time.perf_counter()
        trainer.train()
    print(json.dumps(report(clock, rows, options, ready)))


def report(
    clock: Clock, rows: list[dict[str, Any]], options: argparse.Namespace, ready: float
) -> dict[str, Any]:
    """The first step warms up and is left out."""
    packages = ("trl", "peft", "transformers", "torch")
    wall, cpu = zip(*clock.at, strict=True)
    return {
        "tokens": sum(map(real_tokens, rows[options.batch :])),
        "wall_s": wall[-1] - wall[1],
        "cpu_s": cpu[-1] - cpu[1],
        "train_s": wall[-1] - wall[0],
        "import_s": IMPORTED - STARTED,
        "setup_s": ready - IMPORTED,
        "losses": clock.losses,
        "versions": {name: version(name) for name in packages},
    }


def real_tokens(row: dict[str, Any]) -> int:
    if "token_ids" in row:
        return len(row["token_ids"])
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def made(options: argparse.Namespace, rows: list[dict[str, Any]], folder: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": options.micro,
        "gradient_accumulation_steps": options.batch // options.micro,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "bf16": options.autocast,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "max_length": None,
    }
    lora = None
    if options.adapter:
        model = PeftModel.from_pretrained(model, options.adapter, is_trainable=True)
    else:
        lora = LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
        )
    kind, config, dataset = (
        (LeanSft, SFTConfig(**arguments), sft_rows(rows))
        if options.method == "sft"
        else (LeanDpo, DPOConfig(**arguments, beta=0.1), Dataset.from_list(rows))
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.model)
    trainer = kind(
        model=model, args=config, train_dataset=dataset, processing_class=tokenizer, peft_config=lora
    )
    add_fused_lm_head(trainer.model.get_base_model())
    return trainer


def sft_rows(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "input_ids": row["token_ids"],
                "labels": [
                    token if kept else -100
                    for token, kept in zip(row["token_ids"], row["loss_mask"], strict=True)
                ],
            }
            for row in rows
        ]
    )


if __name__ == "__main__":
    main()
