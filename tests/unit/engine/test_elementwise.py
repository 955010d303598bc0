"""Each hand-written backward against autograd's own of the plain formula in float64."""

from collections.abc import Callable

import pytest
import torch

from engine.core.elementwise import ATEN_GRAIN, evenly, rms_norm, rotate, swiglu

Op = Callable[..., torch.Tensor]


def plain_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def plain_rotation(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def plain_swiglu(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def angles() -> tuple[torch.Tensor, torch.Tensor]:
    half = torch.randn(7, 1, 8)
    both = torch.cat([half, half], dim=-1)
    return both.cos(), both.sin()


CASES: dict[str, tuple[Op, Op, tuple[int, ...], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "norm": (lambda x, w: rms_norm(x, w, 1e-5), plain_norm, (7, 48), lambda: (torch.randn(48),)),
    "norm of heads": (lambda x, w: rms_norm(x, w, 1e-5), plain_norm, (7, 3, 16), lambda: (torch.randn(16),)),
    "rotation": (rotate, plain_rotation, (7, 3, 16), angles),
    "swiglu": (swiglu, plain_swiglu, (7, 2 * 37), lambda: ()),
    "long swiglu": (swiglu, plain_swiglu, (101, 2 * 1408), lambda: ()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_value_and_gradient(name: str, scale: float) -> None:
    op, plain, shape, others = CASES[name]
    torch.manual_seed(1)
    given = others()
    x = (torch.randn(shape) * scale).requires_grad_()
    wide = x.detach().double().requires_grad_()
    found, expected = op(x, *given), plain(wide, *(one.double() for one in given))
    grad = torch.randn(found.shape)
    found.backward(grad)
    expected.backward(grad.double())
    assert x.grad is not None and wide.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-5, atol=2e-5)


def test_a_slice_of_wider_rows_is_taken_as_it_is() -> None:
    wide = torch.randn(7, 5, 16)
    weight = torch.randn(16)
    torch.testing.assert_close(rms_norm(wide[:, 1:3], weight, 1e-5), rms_norm(wide, weight, 1e-5)[:, 1:3])


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 40000), (31, 128), (1000, 128), (333, 1408), (4097, 96)])
def test_no_thread_ends_inside_a_row(threads: int, shape: tuple[int, int]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        blocks = list(evenly(torch.empty(shape)))
    finally:
        torch.set_num_threads(before)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(shape[0]))
    for block in blocks:
        rows = block.stop - block.start
        pieces = min(threads, -(-rows * shape[1] // ATEN_GRAIN))
        assert rows == 1 or -(-rows * shape[1] // pieces) % shape[1] == 0
