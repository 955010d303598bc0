"""Attention over spans against the plain formula in float64: on a CPU, and by the pieces that another device takes."""

import math

import pytest
import torch

from engine.core.packing import Span
from engine.passes.attention import CpuAttention, attention, in_pieces

# A system message, two prompts behind it, answers behind those, a sequence alone; the last tokens are nobody's.
SPANS = (
    Span(start=0, end=21),
    Span(start=21, end=40, before=((0, 21),)),
    Span(start=40, end=41, before=((0, 21), (21, 40))),
    Span(start=41, end=50, before=((0, 21), (21, 40))),
    Span(start=50, end=67, before=((0, 21),)),
    Span(start=67, end=97),
)
TOKENS = 100
FORMS = {"cpu": lambda *given: CpuAttention.apply(*given), "pieces": in_pieces}


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(q k / sqrt(E)) v over whom each token sees. Source: Vaswani et al. (2017), eq. 1."""
    sees = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for span in SPANS:
        for start, end in span.before:
            sees[span.start : span.end, start:end] = True
        size = span.end - span.start
        sees[span.start : span.end, span.start : span.end] = torch.ones(size, size).tril().bool()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.einsum("qhe,khe->hqk", query, key) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~sees, -math.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hqk,khe->qhe", weights, value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key_heads", [1, 3, 6])
def test_value_and_gradients(form: str, key_heads: int) -> None:
    torch.manual_seed(key_heads)
    given = [torch.randn(TOKENS, heads, 16).requires_grad_() for heads in (6, key_heads, key_heads)]
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    found, expected = FORMS[form](*given, SPANS), plain(*wide)
    grad = torch.randn(found.shape)
    grad[97:] = 0  # nobody reads them
    torch.testing.assert_close(found.double()[:97], expected[:97], rtol=1e-5, atol=1e-5)
    found.backward(grad)
    expected[:97].backward(grad[:97].double())
    for one, other in zip(given, wide, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_float32_inside() -> None:
    torch.manual_seed(0)
    given = [torch.randn(TOKENS, heads, 16).bfloat16() for heads in (6, 3, 3)]
    rounded = attention(*(tensor.float() for tensor in given), SPANS).bfloat16()
    assert torch.equal(attention(*given, SPANS), rounded)


def test_who_else_is_in_the_pass_changes_no_bit() -> None:
    torch.manual_seed(0)
    given = [torch.randn(TOKENS, heads, 16) for heads in (6, 3, 3)]
    whole = attention(*given, SPANS)
    alone = attention(*(tensor[67:97].clone() for tensor in given), [Span(start=0, end=30)])
    assert torch.equal(whole[67:97], alone)
