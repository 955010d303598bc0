"""`python -m engine.models.quantize --model FOLDER --out FOLDER`: a model folder to one whose linear layers have the
values of NF4 (see `engine.models.quantized`). Deterministic; done on the CPU whatever the machine has.

The new folder is an ordinary one, in float32, for servers and for whoever takes an adapter away; its `nf4` holds the
packed form. No more than one tensor of the full-precision model is in memory at a time, beside the packed ones and one
file's worth of the new.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from engine.models.decoder import why_unknown
from engine.models.frozen import NF4
from engine.models.quantized import BLOCK, PACKED, dequantised

FILE_BYTES: Final = 1 << 30
BESIDE_THE_WEIGHTS: Final = (".json", ".jinja", ".txt", "tokenizer.model")
INDEX: Final = "model.safetensors.index.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="made whole, or not at all")
    parser.add_argument("--max-example-tokens", type=int, default=2048, help="what the engine will train on")
    options = parser.parse_args()
    quantize(options.model, options.out, max_tokens=options.max_example_tokens)


def quantize(folder: Path, out: Path, *, max_tokens: int) -> None:
    """Raises SystemExit for a model that cannot be held so."""
    reason = why_not(folder, max_tokens=max_tokens)
    if reason is not None:
        raise SystemExit(f"{folder.name} cannot be held in NF4: {reason}.")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    model = packed(folder)
    model.save_pretrained(partial / PACKED)
    write_weights(partial, new_tensors(folder, model))
    write_rest(folder, partial)
    partial.rename(out)


def why_not(folder: Path, *, max_tokens: int) -> str | None:
    """By its config alone. Only what our own passes know is held in NF4: bitsandbytes' layers compute in bfloat16 on some
    CPUs, so an answer sampled through them would not be the served model's."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        return "it is quantised already"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    reason = why_unknown(model, max_tokens=max_tokens)
    if reason is not None:
        return reason
    odd = [
        f"its {name} of {module.in_features} x {module.out_features} has no whole blocks of {BLOCK} weights"
        for name, module in model.model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.numel() % BLOCK
    ]
    return odd[0] if odd else None


def packed(folder: Path) -> Any:
    """Quantised tensor by tensor. The scales are of the float32 values, which hold those of the file exactly."""
    wanted = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=NF4,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=wanted,
        dtype=torch.float32,
        device_map={"": "cpu"},
        use_safetensors=True,
        local_files_only=True,
    )


def new_tensors(folder: Path, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """By the names of the model's own files. Raises SystemExit when they do not name a layer as the model does."""
    linears = {f"{name}.weight": one for name, one in model.named_modules() if isinstance(one, Linear4bit)}
    missing = set(linears)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                missing.discard(key)
                yield key, dequantised(linears[key]) if key in linears else file.get_tensor(key).float()
    if missing:
        raise SystemExit(f"{folder.name} cannot be held in NF4: its files name no {min(missing)}.")


def write_weights(out: Path, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """In files of about `FILE_BYTES`, and their index."""
    place: dict[str, str] = {}
    held: dict[str, torch.Tensor] = {}
    total = held_bytes = number = 0

    def write() -> None:
        name = f"model-{number:05d}.safetensors"
        save_file(held, out / name, metadata={"format": "pt"})
        place.update(dict.fromkeys(held, name))
        held.clear()

    for key, tensor in tensors:
        if held and held_bytes + tensor.nbytes > FILE_BYTES:
            write()
            held_bytes, number = 0, number + 1
        held[key] = tensor.contiguous()
        held_bytes += tensor.nbytes
        total += tensor.nbytes
    write()
    index = {"metadata": {"total_size": total}, "weight_map": place}
    (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))


def write_rest(folder: Path, out: Path) -> None:
    """Tokenizer, template and configs; the weights are float32 now."""
    for path in folder.iterdir():
        if path.is_file() and path.name.endswith(BESIDE_THE_WEIGHTS) and path.name != INDEX:
            shutil.copyfile(path, out / path.name)
    config = json.loads((folder / "config.json").read_text())
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2))


if __name__ == "__main__":
    main()
