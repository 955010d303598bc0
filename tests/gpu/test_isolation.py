"""With fixed shapes a neighbour changes no bit of a run on a GPU, and what a GPU computes is what a CPU does."""

from typing import Any

import pytest
import torch

from engine.contract.spec import ALL_LINEAR, LoraOptions
from engine.core.packing import pack
from engine.models.decoder import decoder_of
from engine.passes.fused import TILE, run_pass
from engine.passes.model import Lesson
from tests.support.lessons import adapter_for, causal_lm, gradients, weighted
from tests.unit.engine.test_fused import groups_of
from tests.unit.engine.test_isolation import REAL, differing

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the trainer sets it."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_neighbours_change_no_bit(family: str, dtype: torch.dtype) -> None:
    decoder = decoder_of(causal_lm(family).to("cuda", dtype))
    assert differing(decoder, seed=1, schedules=100, tile=TILE, most=40) == []


def test_nor_at_a_real_size() -> None:
    decoder = decoder_of(causal_lm("llama", **REAL).to("cuda", torch.bfloat16))
    assert differing(decoder, seed=2, schedules=20, tile=TILE, most=60) == []


@pytest.mark.parametrize("tile", [None, TILE])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_gpu_computes_what_a_cpu_does(family: str, tile: int | None) -> None:
    """In float32, and without the products of TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    found: list[tuple[float, torch.Tensor, dict[str, torch.Tensor]]] = []
    for device in ("cpu", "cuda"):
        decoder = decoder_of(causal_lm(family).to(device))
        packed = pack([group for number in range(4) for group in groups_of(number)], bound=False)
        adapter = adapter_for(decoder, LoraOptions(rank=8, target_modules=ALL_LINEAR), seed=1)
        lesson = Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=1)
        (outcome,) = run_pass(decoder, [lesson], tile=tile)
        assert outcome.rows is not None
        found.append((outcome.loss, outcome.rows.logprobs, on_cpu(gradients(adapter))))
    (loss, logprobs, grads), (their_loss, their_logprobs, their_grads) = found
    assert their_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(logprobs, their_logprobs, rtol=1e-4, atol=1e-5)
    for name, grad in grads.items():
        assert float((grad - their_grads[name]).norm() / grad.norm()) < 1e-4, name


def on_cpu(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
