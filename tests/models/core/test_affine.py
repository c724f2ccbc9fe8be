"""Affine maps by oneDNN and by PyTorch's own functions, against double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from models.core import affine as tested
from models.core.affine import ROWS, Affine, affine

needs_onednn = pytest.mark.skipif(not tested._has_onednn(), reason="no oneDNN, or no x86 processor")


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """The shapes of the inputs of all products by oneDNN."""
    shapes: list[torch.Size] = []
    own = tested._product

    def counted(x: Tensor, *args: object) -> Tensor:
        shapes.append(x.shape)
        return own(x, *args)  # type: ignore[arg-type]  # its arguments are passed on as they are

    monkeypatch.setattr(tested, "_product", counted)
    yield shapes


def _drawn(frames: int, sequences: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (frames, sequences, 7), (9, 7), (9,), (frames, sequences, 9)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def _plain(u: Tensor, weight: Tensor, bias: Tensor, *, tanh: bool) -> Tensor:
    out = nn.functional.linear(u, weight, bias)
    return out.tanh() if tanh else out


def _with_gradients(of: Callable[..., Tensor], dtype: torch.dtype, tanh: bool, frames: int = ROWS // 8) -> list[Tensor]:
    *leaves, weights = _drawn(frames, 8, dtype)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    out = of(*leaves, tanh=tanh)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


@needs_onednn
@pytest.mark.parametrize("tanh", [False, True])
def test_values_and_gradients_are_those_of_double_precision(tanh: bool, products: list[torch.Size]) -> None:
    found = _with_gradients(affine, torch.float32, tanh)
    expected = _with_gradients(_plain, torch.float64, tanh)
    assert products == [(ROWS, 7), (ROWS, 9)]  # forward, and the gradient of the input
    for value, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize(
    ("dtype", "frames"), [(torch.float64, ROWS // 8), (torch.float32, ROWS // 8 + 1), (torch.float32, 0)]
)
def test_in_double_precision_and_for_other_numbers_of_rows_it_is_pytorchs(
    tanh: bool, dtype: torch.dtype, frames: int, products: list[torch.Size]
) -> None:
    found, expected = (_with_gradients(of, dtype, tanh, frames) for of in (affine, _plain))
    assert products == []
    assert all(torch.equal(value, exact) for value, exact in zip(found, expected, strict=True))


@needs_onednn
def test_inputs_of_any_strides_and_views_of_weights(products: list[torch.Size]) -> None:
    u, weight, bias, _ = _drawn(ROWS // 8, 8, torch.float32)
    expanded, wide = u[:1, :1].expand_as(u), torch.cat([weight, weight], dim=1)
    for some in (expanded, u.transpose(0, 1), u.movedim(-1, 0).contiguous().movedim(0, -1)):
        for view in (weight, wide[:, 7:], weight.t().contiguous().t()):
            torch.testing.assert_close(affine(some, view, bias), _plain(some, view, bias, tanh=False))
    assert len(products) == 9
    u.requires_grad_()
    affine(u, weight, bias).sum().backward()  # the gradient of the output is one number, expanded
    torch.testing.assert_close(u.grad, weight.sum(0).expand_as(u))


@needs_onednn
@pytest.mark.parametrize("tanh", [False, True])
def test_its_gradient_is_differentiated_again(tanh: bool) -> None:
    def second(of: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        *leaves, weights = _drawn(ROWS // 8, 8, dtype)
        leaves = [leaf.requires_grad_() for leaf in leaves]
        first = torch.autograd.grad((of(*leaves, tanh=tanh).square() * weights).sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum((one.square().sum() for one in first), torch.zeros(())), leaves))

    for value, exact in zip(second(affine, torch.float32), second(_plain, torch.float64), strict=True):
        assert (value - exact).abs().max() < 1e-5 * exact.abs().max()


@needs_onednn
def test_function_transforms_autocast_and_a_disabled_onednn_are_pytorchs(
    products: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    u, weight, bias, _ = _drawn(ROWS // 8, 8, torch.float32)
    of_u = torch.func.grad(lambda v: affine(v, weight, bias, tanh=True).sum())(u)
    torch.testing.assert_close(of_u, torch.func.grad(lambda v: _plain(v, weight, bias, tanh=True).sum())(u))
    with torch.autocast("cpu", torch.bfloat16):
        assert affine(u, weight, bias).dtype == torch.bfloat16
    monkeypatch.setattr(torch._C, "_get_mkldnn_enabled", lambda: False)  # torch.backends.mkldnn.enabled
    assert torch.equal(affine(u, weight, bias), _plain(u, weight, bias, tanh=False))
    assert products == []


def test_a_frozen_layer_gets_no_gradient_and_passes_one_on() -> None:
    layer = Affine(7, 9, tanh=True).requires_grad_(False)
    u = _drawn(ROWS // 8, 8, torch.float32)[0].requires_grad_()
    layer(u).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None
    slope = 1.0 - layer(u).detach().square()
    torch.testing.assert_close(u.grad, slope @ layer.weight)
