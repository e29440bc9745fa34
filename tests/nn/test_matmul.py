"""Settings of matrix products: put back afterwards, and float32 where float32 is said."""

from __future__ import annotations

import pytest
import torch

from cradlevae.nn.matmul import matmul_precision, onednn_is_float32, reduced

pytestmark = pytest.mark.numeric


def settings() -> tuple[str, str, bool]:
    return torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision, reduced()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_settings_are_put_back(precision: str) -> None:
    before = settings()

    def fail() -> None:
        with matmul_precision(precision):
            assert reduced() == (precision == "bf16")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert settings() == before


def test_settings_nest() -> None:
    with matmul_precision("bf16"):
        outer = settings()
        with matmul_precision("float32"):
            assert not reduced()
        assert settings() == outer


@pytest.mark.parametrize("shape", [(700, 300, 500), (33, 400, 129), (1, 64, 2000)])
def test_float32_products_are_of_float32(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    with matmul_precision("float32"):
        found = left @ right
        transposed = (right.T.contiguous() @ left.T.contiguous()).T
    expected = left.double() @ right.double()
    scale = float(expected.square().mean().sqrt())
    assert float((found - expected).square().mean().sqrt()) < 2e-6 * scale
    assert float((transposed - expected).square().mean().sqrt()) < 2e-6 * scale


def test_the_choice_is_made_once_and_leaves_no_trace() -> None:
    before = settings()
    assert onednn_is_float32() == onednn_is_float32()
    assert settings() == before
