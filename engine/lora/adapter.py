"""One LoRA adapter on the resident base: attached with a seed, exported in peft's layout, taken off again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file

from engine.contract.events import CheckpointFile
from engine.contract.spec import ADAPTER_CONFIG as CONFIG
from engine.contract.spec import ADAPTER_WEIGHTS as WEIGHTS
from engine.contract.spec import LoraOptions


def attach(causal_lm: Any, *, options: LoraOptions, seed: int) -> PeftModel:
    """A: Kaiming-uniform from `seed`; B: zero, so that training starts at the base model's own answers."""
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(options.target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(causal_lm, config)
    for parameter in trainable(model):
        parameter.data = parameter.data.float()  # a bfloat16 base still learns in float32
    return model


def trainable(model: PeftModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def detach(model: PeftModel) -> None:
    """Leaves the base model as it was."""
    model.unload()
    base = model.get_base_model()
    if hasattr(base, "peft_config"):
        del base.peft_config


def export(model: PeftModel, *, base_model: str, folder: Path) -> tuple[CheckpointFile, ...]:
    """Writes peft's two files; equal weights give equal bytes. `folder` is made."""
    folder.mkdir(parents=True)
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in state(model).items()}
    save_file(dict(sorted(tensors.items())), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(config_json(model, base_model=base_model))
    return tuple(described(folder / name) for name in (WEIGHTS, CONFIG))


def load_weights(model: PeftModel, folder: Path) -> None:
    """The weights that `export` wrote, bit for bit. Raises ValueError when they are another adapter's."""
    set_state(model, load_file(folder / WEIGHTS))


def set_state(model: PeftModel, weights: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `state`. Raises ValueError when the weights are another adapter's."""
    found = set_peft_model_state_dict(model, dict(weights))
    missing = [name for name in found.missing_keys if "lora_" in name]
    if missing or found.unexpected_keys:
        raise ValueError("the checkpoint's weights do not fit this run's adapter")


def state(model: PeftModel) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    return tensors


def config_json(model: PeftModel, *, base_model: str) -> str:
    """Names the base model, never a path of this machine."""
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_model, "inference_mode": True}
    return json.dumps(config, indent=2, sort_keys=True, default=lambda value: sorted(value))


def described(path: Path) -> CheckpointFile:
    data = path.read_bytes()
    return CheckpointFile(name=path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
