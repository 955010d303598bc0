"""A base whose linear layers are held in NF4 with double quantisation (QLoRA; Dettmers et al. 2023), through
bitsandbytes. The embedding, the head and the norms stay floats, as in the paper.

Such a base is a folder that `engine.models.quantize` wrote: its own weights are the dequantised values, so that a server
computes with what was trained on; beside them, in `nf4`, lies the packed form, which is all that is read here. So the
full-precision weights are never in this process's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM

from engine.models.frozen import NF4, product
from engine.models.resident import ResidentModel, stopping, this_device, tokenizer_of

PACKED: Final = NF4  # the folder in the folder
BLOCK: Final = 64  # values that share a scale
# Values that are floats at a time. On a CPU an allocator gives pieces below 32 MB back without asking the system for
# their pages again, which takes longer than the dequantisation; a GPU wants large products.
PIECE_VALUES: Final = {"cpu": 1 << 22, "cuda": 1 << 26}
NOTICE: Final = (
    "The base model is held in NF4 (QLoRA): its weights have 4 bits, the adapter's are floats as always."
)


class Nf4Linear:
    """Several modules that read the same input, side by side. Rows become floats piece by piece, in every product anew.

    The same values for every run, and pieces that depend on the base's shape alone: a neighbour changes no bit.
    """

    def __init__(self, modules: Sequence[Linear4bit]) -> None:
        states = [module.weight.quant_state for module in modules]
        for state in states:
            check_state(state)
        self.states = states
        self.packed = packed_together(modules)
        self.bias = None if modules[0].bias is None else torch.cat([one.bias.detach() for one in modules])
        self.inputs = int(modules[0].in_features)
        self.outputs = sum(int(module.out_features) for module in modules)
        most = PIECE_VALUES.get(self.packed.device.type, PIECE_VALUES["cuda"])
        self.piece = min(self.outputs, max(BLOCK, most // self.inputs // BLOCK * BLOCK))

    @property
    def scratch_values(self) -> int:
        """Of one piece, and the scales of all blocks."""
        return self.piece * self.inputs + self.outputs * self.inputs // BLOCK

    def forward(self, x: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        parts = [product(x, weight().T, tile=tile) for _, weight in self.pieces(x.dtype)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out if self.bias is None else out.add_(self.bias)

    def backward(self, grad: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        total: torch.Tensor | None = None
        for rows, weight in self.pieces(grad.dtype):
            part = product(grad[:, rows], weight(), tile=tile)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Callable[[], torch.Tensor]]]:
        """Rows, and what makes W (rows, inputs) of them: nobody keeps a piece while the next is made."""
        scales = torch.cat([scales_of(state) for state in self.states])
        for start in range(0, self.outputs, self.piece):
            end = min(start + self.piece, self.outputs)
            first, last = start * self.inputs, end * self.inputs
            yield (
                slice(start, end),
                partial(
                    floats,
                    self.packed[first // 2 : last // 2],
                    scales[first // BLOCK : last // BLOCK],
                    inputs=self.inputs,
                    dtype=dtype,
                ),
            )


def floats(packed: torch.Tensor, scales: torch.Tensor, *, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """(rows, inputs). bitsandbytes is told of rows of one block each: its kernel for AVX-512 (0.50.2) takes the wrong
    scales for rows of a multiple of 16 that is none of 64."""
    state = QuantState(
        absmax=scales,
        shape=torch.Size((len(scales), BLOCK)),
        dtype=dtype,
        blocksize=BLOCK,
        quant_type=NF4,
    )
    values: torch.Tensor = dequantize_4bit(packed, state)
    return values.view(-1, inputs)


def check_state(state: QuantState | None) -> None:
    """Raises ValueError for what the products above would read wrongly."""
    if state is None or (state.quant_type, state.blocksize, state.nested) != (NF4, BLOCK, True):
        raise ValueError(f"a layer is not held in NF4 by blocks of {BLOCK} with double quantisation")
    if state.shape.numel() % BLOCK:
        raise ValueError(f"a layer of {tuple(state.shape)} has no whole blocks of {BLOCK}")


def scales_of(state: QuantState) -> torch.Tensor:
    """Of each block, float32: they are quantised themselves."""
    scales: torch.Tensor = dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scales


def packed_together(modules: Sequence[Linear4bit]) -> torch.Tensor:
    """Held once: each module's weight is made a view of it."""
    whole: torch.Tensor = modules[0].weight.data
    if len(modules) == 1:
        return whole
    whole = torch.cat([module.weight.data for module in modules])
    start = 0
    for module in modules:
        size = module.weight.shape[0]
        module.weight.data = whole[start : start + size]
        start += size
    return whole


def dequantised(module: Linear4bit) -> torch.Tensor:
    """Float32: the values that every product computes with; in bfloat16 they are these, rounded."""
    linear = Nf4Linear([module])
    return torch.cat([weight() for _, weight in linear.pieces(torch.float32)])


def load_nf4(folder: Path, *, name: str, dtype: torch.dtype = torch.float32) -> ResidentModel:
    """The packed weights of a folder that `engine.models.quantize` wrote, on the device this machine has.

    Raises OSError or ValueError when the folder holds no usable model.
    """
    if not (folder / PACKED / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no NF4 weights: make such a folder by `tuningfork models prepare --quantization nf4`"
        )
    device = this_device()
    tokenizer = tokenizer_of(folder, name=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder / PACKED,
        dtype=dtype,
        device_map={"": str(device)},
        use_safetensors=True,
        local_files_only=True,
    )
    model.requires_grad_(False)
    return stopping(
        ResidentModel(name=name, causal_lm=model, tokenizer=tokenizer, device=device, notice=NOTICE)
    )
