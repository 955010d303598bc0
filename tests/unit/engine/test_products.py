"""Products by numpy's OpenBLAS are those of torch, whatever their layout and however many threads share them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core import products
from engine.core.products import multiply, multiply_by_openblas, pieces, suits_openblas


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """On whatever processor this is."""
    monkeypatch.setattr(products, "openblas_is_faster", lambda: True)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


LAYOUTS = {
    "rows by a weight's transpose": lambda: (torch.randn(300, 160), torch.randn(500, 160).T),
    "rows by a weight": lambda: (torch.randn(300, 160), torch.randn(160, 200)),
    "columns of wider rows": lambda: (torch.randn(301, 400)[:, 100:260], torch.randn(160, 200)),
    "few rows by a head": lambda: (torch.randn(67, 160), torch.randn(900, 160).T),
    "with a gradient to come": lambda: (torch.randn(300, 160, requires_grad=True), torch.randn(160, 200)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_product(threads: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(threads)
    left, right = LAYOUTS[layout]()
    taken: list[int] = []
    monkeypatch.setattr(
        products, "multiply_by_openblas", lambda *given: (taken.append(1), multiply_by_openblas(*given))
    )
    found = multiply(left, right)
    assert taken and not found.requires_grad
    torch.testing.assert_close(found.double(), left.detach().double() @ right.double(), rtol=1e-5, atol=1e-4)
    moved = torch.empty(left.numel() + 1)[1:].view(left.shape).copy_(left.detach())
    assert torch.equal(multiply(moved, right), found), "the bits depend on where the numbers lie"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.randn(300, 512), torch.randn(512, 16)),
        (torch.randn(1, 512), torch.randn(512, 512)),
        (torch.randn(255, 512), torch.randn(512, 256)),
        (torch.randn(300, 6000), torch.randn(6000, 256)),
        (torch.randn(300, 512).bfloat16(), torch.randn(512, 512).bfloat16()),
        (torch.randn(300, 512, 2)[:, :, 0], torch.randn(512, 512)),
    ],
    ids=["thin", "one row", "few rows", "much to little", "bfloat16", "with gaps"],
)
def test_the_rest_is_left_to_torch(threads: int, left: torch.Tensor, right: torch.Tensor) -> None:
    assert not suits_openblas(left, right)
    assert torch.equal(multiply(left, right), left @ right)


@given(rows=st.integers(64, 300), columns=st.integers(64, 300), count=st.integers(1, 9))
def test_pieces_are_the_whole(rows: int, columns: int, count: int) -> None:
    left, right = np.ones((rows, 3), np.float32), np.ones((3, columns), np.float32)
    out = np.zeros((rows, columns), np.float32)
    for a, b, c in pieces(left, right, out, count=count):
        c += a @ b
    assert (out == 3).all()
