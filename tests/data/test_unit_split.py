"""Splits of units with several labels are about as good as the best of all splits."""

import itertools

import numpy as np
import pytest

from diffmic.data.unit_split import split_units


def badness(counts, chosen, fraction):
    """Labels that one side lacks, most important first, then how far the shares are off."""
    sums, totals = counts[chosen].sum(axis=0), counts.sum(axis=0)
    divisible = (counts > 0).sum(axis=0) > 1
    deviation = np.abs(sums / totals - fraction)
    lacking = (sums == totals).sum() + (sums[0] == 0), ((sums == 0) & divisible).sum()
    return *map(int, lacking), 2 * deviation[0] + deviation[1:].mean()


@pytest.mark.parametrize("seed", range(25))
def test_few_units_are_split_about_as_well_as_they_can_be(seed):
    rng = np.random.RandomState(seed)
    images = rng.geometric(0.2, rng.randint(3, 10))
    labels = [rng.binomial(images, rng.uniform(0.05, 0.5)) for _ in range(3)]
    counts = np.column_stack([images, *(label for label in labels if label.any())]).astype(float)
    fraction = rng.uniform(0.1, 0.6)
    every_split = itertools.product([False, True], repeat=len(counts))
    best = min(badness(counts, np.array(chosen), fraction) for chosen in every_split)
    chosen = split_units(counts, fraction, rng)
    if chosen is None:
        assert best[0] > 0
    else:
        found = badness(counts, chosen, fraction)
        assert found[:2] == best[:2]
        assert found[2] < best[2] + 0.1
