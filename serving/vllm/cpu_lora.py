"""Two faults of vLLM's adapters on a CPU, mended in its processes before it loads a model. Nothing here runs on a GPU.

Its PyTorch kernels read "no adapter", -1, as an index: in a batch with any adapter, a request for the base model was
computed with the adapter in the last slot, which may be another tenant's. (The Triton kernels skip such rows.)

And it wraps the head of every model that could be adapted: asked for a prompt's log-probabilities, beside another
request, it ended with an error. Our adapters never touch the head; `command.py` tells vLLM so.
"""

from typing import Any

import torch


def mend() -> None:
    """Does nothing where vLLM was mended before, or has other kernels."""
    from vllm.lora.ops import torch_ops
    from vllm.lora.punica_wrapper import punica_cpu

    def bgmv_shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
        torch_ops.bgmv_shrink(inputs, weights, output, indices, scaling)
        output[: len(indices)].masked_fill_((indices < 0)[:, None], 0.0)  # what follows adds this times B

    def sgmv_shrink(
        inputs: Any,
        weights: Any,
        output: Any,
        _starts: Any,
        lengths: Any,
        indices: Any,
        _batches: int,
        _longest: int,
        _tokens: int,
        scaling: float,
    ) -> None:
        bgmv_shrink(inputs, weights, output, torch.repeat_interleave(indices, lengths), scaling)

    punica_cpu.bgmv_shrink, punica_cpu.sgmv_shrink = bgmv_shrink, sgmv_shrink
