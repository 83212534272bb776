"""Randomness that can be repeated, and leaves no trace."""

import io
import multiprocessing
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from diffmic.data import named_augment
from diffmic.errors import InputError
from diffmic.random import LocalRNG, derived_seed, draw_seed, global_generators

# --- Seeds --------------------------------------------------------------------------------------


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


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_derived_seeds_depend_on_the_order_of_their_numbers(a, b):
    assert 0 <= derived_seed(a, b) < 2**63
    assert derived_seed(a, b) == derived_seed(a, b)
    if a != b:
        assert derived_seed(a, b) != derived_seed(b, a)


def test_derived_seeds_do_not_collide():
    pairs = {derived_seed(a, b) for a in range(60) for b in range(60)}
    triples = {derived_seed(a, b, c) for a in range(15) for b in range(15) for c in range(15)}
    assert len(pairs) == 60**2
    assert len(triples) == 15**3
    assert not pairs & triples


def test_derived_seeds_are_the_same_in_every_process():
    """Unlike those of hash(), which Python may salt; files and papers name them."""
    assert derived_seed(0, 1) == 4789138394188029517
    assert derived_seed(1, 0) == 6609312287773032911


# --- LocalRNG -----------------------------------------------------------------------------------

DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3, 2),
    "randint": lambda: torch.randint(10**6, (4,)),
    "randperm": lambda: torch.randperm(50),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 20),
    "bernoulli": lambda: torch.bernoulli(torch.full((40,), 0.5)),
    "normal": lambda: torch.normal(torch.zeros(3), torch.ones(3)),
    "rand_like": lambda: torch.rand_like(torch.empty(3)),
    "randn_like": lambda: torch.randn_like(torch.empty(3)),
    "randint_like": lambda: torch.randint_like(torch.empty(9), 10**6),
    "tensor methods": lambda: torch.empty(5).normal_() + torch.empty(5).uniform_(),
    "linear layer": lambda: nn.Linear(4, 3).weight.detach(),
    "convolution": lambda: nn.Conv2d(3, 4, 3).weight.detach(),
    "truncated normal": lambda: nn.init.trunc_normal_(torch.empty(5)),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(4, 4)),
    "dropout": lambda: nn.Dropout(0.5)(torch.ones(40)),
    "dropout of channels": lambda: nn.Dropout2d(0.5)(torch.ones(1, 40, 2, 2)),
    "dropout in place": lambda: F.dropout(torch.ones(40), 0.5, inplace=True),
    "dropout without generators": lambda: nn.AlphaDropout(0.5)(torch.ones(40)),
    "leaky ReLU": lambda: nn.RReLU()(-torch.ones(40)),
    "horizontal flips": lambda: torch.stack(
        [v2.RandomHorizontalFlip()(torch.arange(4.0).view(1, 1, 4)) for _ in range(40)]
    ),
    "rotations": lambda: named_augment("rotations")(torch.linspace(0, 1, 300).view(3, 10, 10)),
    "colours": lambda: v2.ColorJitter(0.5, 0.5)(torch.linspace(0, 1, 300).view(3, 10, 10)),
    "crops": lambda: v2.RandomResizedCrop(8)(torch.rand(3, 40, 40)),
}
ALL_DRAWS = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def global_states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
    )


@ALL_DRAWS
def test_inside_everything_is_drawn_by_the_seed_and_outside_nothing_is_changed(draw):
    before = global_states()
    found = []
    for seed in (5, 5, 6):
        with LocalRNG(seed):
            found.append((draw(), draw()))
    assert global_states() == before
    first, again, other = found
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])  # it goes on
    assert not torch.equal(first[0], other[0])


@ALL_DRAWS
def test_what_is_drawn_does_not_hang_on_the_global_generator(draw):
    found = []
    with torch.random.fork_rng(devices=[]):
        for global_seed in (0, 1):
            torch.manual_seed(global_seed)
            with LocalRNG(5):
                found.append(draw())
    assert torch.equal(*found)


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1, 2**64])
def test_any_integer_is_a_seed(seed):
    with LocalRNG(seed):
        first = torch.rand(3)
    with LocalRNG(seed):
        assert torch.equal(torch.rand(3), first)


def test_a_generator_that_is_given_is_used():
    given_generator = torch.Generator().manual_seed(1)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(1))
    with LocalRNG(5):
        assert torch.equal(torch.rand(3, generator=given_generator), expected)


def test_one_inside_another_has_numbers_of_its_own():
    with LocalRNG(5):
        expected = torch.rand(3), torch.rand(3)
    with LocalRNG(5):
        before = torch.rand(3)
        with LocalRNG(6):
            inside = torch.rand(3)
        after = torch.rand(3)
    assert torch.equal(before, expected[0])
    assert torch.equal(after, expected[1])
    with LocalRNG(6):
        assert torch.equal(torch.rand(3), inside)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("layer", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_dropout_is_torchs_but_for_where_it_draws(layer, p):
    ones = torch.ones(20, 200, *[3] * int(layer.__name__[-2] if layer is not nn.Dropout else 0))
    with LocalRNG(0):
        dropped = layer(p)(ones)
        assert torch.equal(layer(p).eval()(ones), ones)
    kept = dropped != 0
    assert kept.float().mean() == pytest.approx(1 - p, abs=0.03)
    if p < 1:
        torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - p)))
    if layer is not nn.Dropout:  # whole channels
        flat = kept.flatten(2)
        assert torch.equal(flat.all(dim=2), flat.any(dim=2))


def test_dropout_passes_its_gradient_to_what_is_kept():
    values = torch.ones(50, requires_grad=True)
    with LocalRNG(0):
        dropped = F.dropout(values, 0.5)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_the_state_goes_on_where_it_was_saved():
    with LocalRNG(5) as rng:
        torch.rand(7)
        F.dropout(torch.ones(3), 0.5)
        buffer = io.BytesIO()
        torch.save(rng.state_dict(), buffer)
        expected = torch.rand(3), F.dropout(torch.ones(40), 0.5), torch.randperm(20)
    buffer.seek(0)
    other = LocalRNG(99)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    with other:
        found = torch.rand(3), F.dropout(torch.ones(40), 0.5), torch.randperm(20)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", ["rand", "dropout", "dropout without generators"])
def test_threads_do_not_disturb_each_other(name):
    draw = DRAWS[name]

    def many(seed):
        with LocalRNG(seed):
            return torch.stack([draw() for _ in range(50)])

    expected = {seed: many(seed) for seed in range(4)}
    found = {}
    start = threading.Barrier(4)

    def work(seed):
        start.wait()
        found[seed] = many(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, numbers in expected.items():
        assert torch.equal(found[seed], numbers)


def test_making_seeds_leaves_the_global_generators_alone():
    before = global_states()
    draw_seed(None)
    draw_seed(3)
    derived_seed(1, 2)
    assert global_states() == before


def test_after_an_error_inside_the_generators_are_as_they_were():
    before = global_states()
    with pytest.raises(RuntimeError, match="shape"), LocalRNG(5):
        nn.AlphaDropout(0.5)(torch.rand(10)).view(3)
    assert global_states() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["rand", "randn_like", "dropout", "alpha"])
def test_a_gpu_has_a_generator_of_its_own(name):
    draw = {
        "rand": lambda: torch.rand(3, device="cuda"),
        "randn_like": lambda: torch.randn_like(torch.empty(3, device="cuda")),
        "dropout": lambda: F.dropout(torch.ones(40, device="cuda"), 0.5),
        "alpha": lambda: F.alpha_dropout(torch.ones(40, device="cuda"), 0.5, training=True),
    }[name]
    before, draws = torch.cuda.get_rng_state().tolist(), []
    for _ in range(2):
        with LocalRNG(5):
            draws.append(draw())
    assert torch.equal(*draws)
    assert torch.cuda.get_rng_state().tolist() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_the_generators_of_a_thread_that_it_lacks():
    taken, done = threading.Event(), threading.Event()

    def hold():
        with global_generators():
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(60)
    worker = multiprocessing.get_context("fork").Process(target=_lend)
    worker.start()
    worker.join(60)
    done.set()
    thread.join()
    assert worker.exitcode == 0


def _lend():
    with global_generators():
        pass


def test_libraries_are_imported_without_drawing_from_pythons_generator():
    code = (
        "import random, sys; before = random.getstate()\n"
        "from diffmic.random import imported\n"
        "state = random.getstate(); imported('sklearn.metrics'); assert random.getstate() == state"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
