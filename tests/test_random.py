"""Chance that can be repeated, and leaves no trace."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffmic.errors import InputError
from diffmic.random import draw_seed, seeded_rng


@given(st.integers(0, 2**32 - 1))
def test_an_integer_is_its_own_seed(seed):
    assert draw_seed(seed) == seed
    assert draw_seed(np.uint32(seed)) == seed
    np.random.RandomState(draw_seed(seed))


def test_a_random_state_gives_one_seed_after_another_and_can_be_repeated():
    rng = np.random.RandomState(0)
    first, second = draw_seed(rng), draw_seed(rng)
    assert first != second
    assert draw_seed(np.random.RandomState(0)) == first


def test_none_gives_a_fresh_seed_each_time():
    assert len({draw_seed(None) for _ in range(10)}) > 1


@pytest.mark.parametrize(
    "random_state", [-1, 2**32, 1.5, "0", "none", [1], np.random.default_rng(0)], ids=str
)
def test_anything_else_is_an_error(random_state):
    with pytest.raises(InputError, match=r"random_state is .*; give None, an integer from 0 to"):
        draw_seed(random_state)


@given(st.integers(-(2**63), 2**63))
def test_inside_torch_draws_what_the_seed_says(seed):
    with seeded_rng(seed):
        first = torch.rand(3)
    with seeded_rng(seed, torch.device("cpu")):
        assert torch.equal(torch.rand(3), first)


def test_another_seed_gives_other_draws():
    draws = []
    for seed in (0, 1):
        with seeded_rng(seed):
            draws.append(torch.rand(3))
    assert not torch.equal(*draws)


def global_states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
    )


def test_afterwards_every_global_generator_is_as_it_was():
    before = global_states()
    draw_seed(None)
    draw_seed(3)
    with seeded_rng(5):
        torch.rand(10)
    assert global_states() == before


def test_after_an_error_inside_the_generators_are_as_they_were():
    before = global_states()
    with pytest.raises(RuntimeError, match="shape"), seeded_rng(5):
        torch.rand(10).view(3)
    assert global_states() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_generator_of_a_gpu_is_seeded_and_put_back():
    device = torch.device("cuda")
    before, draws = torch.cuda.get_rng_state().tolist(), []
    for _ in range(2):
        with seeded_rng(5, device):
            draws.append(torch.rand(3, device=device))
    assert torch.equal(*draws)
    assert torch.cuda.get_rng_state().tolist() == before
