"""Products by digits are those of float32."""

import pytest
import torch

from diffmic.inference import digits, faster
from diffmic.inference.digits import BASE, N_DIGITS, digits_of, product_by_digits
from diffmic.inference.onednn import has_amx
from diffmic.model.denoiser import TimeGain

needs_amx = pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_digits_are_integers_that_add_up_to_the_rows():
    rows = drawn(5, 300) * torch.tensor([1e-6, 1.0, 3.0, 1e6, 0.0])[:, None]
    found, scale = digits_of(rows)
    assert found.dtype == torch.int8
    assert found.abs().max() == 127
    weights = BASE ** -torch.arange(N_DIGITS, dtype=torch.float64)
    again = torch.einsum("i,inm->nm", weights, found.double()) * scale
    largest = rows.abs().amax(dim=1, keepdim=True)
    assert ((again - rows).abs() <= 2e-7 * largest).all()


@needs_amx
@pytest.mark.parametrize("shape", [(1, 2048), (2, 3, 2048), (100, 2048)])
def test_products_err_no_more_than_a_few_times_as_much_as_those_of_float32(shape):
    weight, features = drawn(700, 2048) * 0.02, torch.nn.functional.softplus(3 * drawn(*shape))
    found = product_by_digits(weight)(features)
    exact = features.double() @ weight.double().T
    usual = (features @ weight.T - exact).square().mean().sqrt()
    assert found.shape == (*shape[:-1], 700)
    assert found.dtype == torch.float32
    assert (found - exact).square().mean().sqrt() < 5 * usual


@needs_amx
def test_a_row_gets_the_same_product_whatever_is_beside_it():
    times_weight, features = product_by_digits(drawn(1100, 1000)), drawn(9, 1000)
    features[4] *= 1e9
    features[6] = 0
    together = times_weight(features)
    alone = torch.cat([times_weight(row) for row in features.split(1)])
    assert torch.equal(together, alone)
    assert not together[6].any()


@needs_amx
def test_what_is_not_finite_is_not_hidden():
    features = drawn(3, 1000)
    features[0, 7], features[1, 7] = float("nan"), float("inf")
    found = product_by_digits(drawn(1100, 1000))(features)
    assert not found[:2].isfinite().any()
    assert found[2].isfinite().all()
    weight = drawn(1100, 1000)
    weight[3, 3] = float("nan")
    assert product_by_digits(weight) is None


@needs_amx
def test_an_error_is_a_share_of_the_largest_value_of_the_row():
    weight, features = drawn(700, 2048) * 0.02, drawn(3, 2048)
    features[:, 5] = 1e4
    weight[:, 5] = 0  # else the large value would hide what happens to the others
    exact = features.double() @ weight.double().T
    assert (product_by_digits(weight)(features) - exact).abs().max() < 1e4 * 2**-24 * 5


@needs_amx
def test_autocast_and_weights_of_another_type_do_no_harm():
    weight, features = drawn(1100, 1000), drawn(3, 1000)
    with torch.autocast("cpu", torch.bfloat16):
        found = product_by_digits(weight)(features)
    torch.testing.assert_close(found, features @ weight.T, rtol=1e-5, atol=1e-4)
    assert product_by_digits(weight.double()) is None
    assert product_by_digits(weight.bfloat16()) is None


@pytest.mark.parametrize("lacks", ["AMX", "the operators", "precision"])
def test_the_packed_product_is_taken_where_digits_cannot_be_had(monkeypatch, lacks):
    monkeypatch.setattr(digits, "has_amx", lambda: lacks != "AMX")
    if lacks == "the operators":
        monkeypatch.setattr(digits, "_product", lambda weight: torch.ops.onednn.no_such_operator)
    elif lacks == "precision":
        monkeypatch.setattr(
            digits, "_product", lambda weight: lambda rows: 1.0001 * rows @ weight.T
        )
    layer = TimeGain(1024, 1100, 10)
    features = drawn(2, 6, 1024)
    wide = faster.WideTimeGain(layer, torch.float32)
    assert product_by_digits(layer.linear.weight.detach()) is None
    found = wide.product(features, torch.ones(1100), torch.zeros(1100))
    expected = features @ layer.linear.weight.detach().T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
