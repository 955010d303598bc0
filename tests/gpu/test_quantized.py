"""NF4 on CUDA: what a GPU computes with are the values of the served copy, which a CPU wrote, rounded to bfloat16."""

from pathlib import Path

import pytest
import torch

from engine.models.quantize import quantize
from engine.models.quantized import Nf4Linear, load_nf4
from engine.models.resident import load
from engine.passes.fused import FusedModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_computes_with_the_served_weights(tiny_model: Path, tmp_path: Path) -> None:
    quantize(tiny_model, tmp_path / "tiny-nf4", max_tokens=512)
    packed, served = (
        FusedModel(read(tmp_path / "tiny-nf4", name="tiny", dtype=torch.bfloat16), most_runs=4)
        for read in (load_nf4, load)
    )
    for ours, theirs in zip(packed.decoder.layers, served.decoder.layers, strict=True):
        for group, linear in ours.linear.items():
            assert isinstance(linear, Nf4Linear)
            whole = torch.cat([weight() for _, weight in linear.pieces(torch.bfloat16)])
            assert torch.equal(whole, theirs.linear[group].weight)  # type: ignore[attr-defined]
