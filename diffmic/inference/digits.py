"""Products with wide float32 weights on CPUs that multiply 8-bit integers in tiles (AMX).

A row is written in digits: x ≈ s Σ_i d_i / 254^i with integers d_i from −127 to 127, three of them,
so that each number is off by at most 2⁻²⁴ of the largest in its row. Products of digits add up
without rounding, in 32 bits, and those that count for less than the last bit are left out. So three
quarters of the memory are read, and the arithmetic is faster, too (Ootomo, Ozaki and Yokota, "DGEMM
on integer matrix multiplication unit", IJHPCA 2024).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .onednn import NOTHING, has_amx

N_DIGITS = 3
BASE = 254.0  # half a step of a digit is 127 steps of the next
_LARGEST = 127
_WIDEST = 2**31 // _LARGEST**2  # columns whose products stay below 32 bits
_TOLERANCE = 1e-5  # of the largest value of a product; rounding stays below 1e-6


def digits_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Digits (N_DIGITS, n, m) of finite rows (n, m), and the scale (n, 1) of each row."""
    scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / _LARGEST
    rest = rows / scale
    digits = torch.empty(N_DIGITS, *rows.shape, dtype=torch.int8, device=rows.device)
    for number in range(N_DIGITS):
        digit = rest.round()
        digits[number] = digit
        if number < N_DIGITS - 1:
            rest = (rest - digit).mul_(BASE)
    return digits, scale


def product_by_digits(weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Multiplication by a weight (out, in) as :func:`torch.nn.functional.linear` does it.

    Parameters
    ----------
    weight : Tensor
        Of float32, on the CPU.

    Returns
    -------
    callable or None
        None where this processor or build of torch cannot do it, or the weight is not finite.
    """
    if not (has_amx() and weight.dtype == torch.float32 and weight.shape[1] <= _WIDEST):
        return None
    if not weight.isfinite().all():
        return None
    rows = weight[:2]
    try:
        found = _product(weight)
        with torch.autocast("cpu", enabled=False):
            expected = F.linear(rows, weight)
            largest = float(expected.abs().max())
            exact = torch.allclose(found(rows), expected, rtol=0, atol=_TOLERANCE * largest)
    except (AttributeError, RuntimeError):  # the operators are not public
        return None
    return found if exact else None


def _product(weight: Tensor) -> Callable[[Tensor], Tensor]:
    onednn = torch.ops.onednn
    weight_digits, weight_scale = digits_of(weight)
    packed = [onednn.qlinear_prepack(digit, None) for digit in weight_digits]
    scales = [weight_scale.flatten() / BASE**number for number in range(N_DIGITS)]
    zeros = torch.zeros(len(weight), dtype=torch.long, device=weight.device)
    as_it_is = (1.0, 0)  # scale and zero of an input, and of the output

    def times_digit(rows: Tensor, number: int) -> Tensor:
        product: Tensor = onednn.qlinear_pointwise(
            *(rows, *as_it_is, packed[number], scales[number], zeros, None),
            *(*as_it_is, torch.float32, *NOTHING),
        )
        return product

    def times_weight(features: Tensor) -> Tensor:
        rows = features.flatten(0, -2)
        digits, scale = digits_of(rows)
        stacked, n = digits.flatten(0, 1), len(rows)
        # Line i is the sum of d_i times the weight's digits j, as long as i + j < N_DIGITS.
        sums = times_digit(stacked, 0)
        for number in range(1, N_DIGITS):
            n_rows = (N_DIGITS - number) * n
            sums[:n_rows].add_(times_digit(stacked[:n_rows], number))
        product, *smaller = torch.split(sums, n)
        for number, line in enumerate(smaller, start=1):
            product.add_(line, alpha=BASE**-number)
        return product.mul_(scale).view(*features.shape[:-1], -1)

    return times_weight
