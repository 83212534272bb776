"""A time limit: what it leaves for the parts that follow."""

import time

import numpy as np
import pytest
from tiny import small

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.training.clock import Clock
from diffmic.training.progress import Phase, Progress


def at(seconds, *, phase="prior", limit=100.0, cost=1.0):
    """A fit of so many seconds in which an image costs ``cost`` seconds, and its clock."""
    progress, clock = Progress(), Clock(limit)
    progress.start(
        [
            Phase("prior", 20, 4.0, 1.0),
            Phase("encoding", 5, 1.0),
            Phase("diffusion", 20, 0.5, 0.5),
            Phase("calibration", 1, 2.0),
        ]
    )
    clock.started -= seconds
    progress.enter(phase, progress.phases[phase].rounds)
    current = progress.phases[phase]
    current.measured, current.seconds = 1.0, cost * current.work
    return clock, progress


@pytest.mark.parametrize(("seconds", "late"), [(60, False), (77, False), (78.5, True)])
def test_stage_one_leaves_the_others_their_share(seconds, late):
    """Its 100 seconds are 0.79 of the 127 that are planned; a validation takes another."""
    clock, progress = at(seconds)
    assert clock.is_late(progress, 3, 20) == late
    assert clock.cut == ({"prior": (3, 20)} if late else {})
    assert ("after 3 of 20 epochs of the prior" in clock.told) == late


def test_stage_one_leaves_time_for_one_round_of_all_that_follows():
    """A view, an epoch and the calibration are 4 passes of 10 seconds."""
    assert not at(43, cost=10.0)[0].is_late(at(43, cost=10.0)[1], 1, 20)
    clock, progress = at(46, cost=10.0)
    assert clock.is_late(progress, 1, 20)


@pytest.mark.parametrize(("seconds", "late"), [(91, False), (93, True)])
def test_stage_two_leaves_time_for_validation_and_calibration(seconds, late):
    clock, progress = at(seconds, phase="diffusion")
    assert clock.is_late(progress, 3, 20) == late


def test_a_stage_that_is_complete_is_not_late():
    clock, progress = at(1000)
    assert not clock.is_late(progress, 20, 20)
    assert clock.told == ""


@pytest.mark.parametrize(("seconds", "another"), [(80, True), (92, False)])
def test_a_view_is_cached_if_as_much_time_remains_for_stage_two(seconds, another):
    clock, progress = at(seconds, phase="encoding")
    assert clock.leaves_another(progress, 2, 5) == another


def test_without_a_limit_nothing_is_late():
    clock, progress = at(1e6, limit=None)
    assert not clock.is_late(progress, 1, 20)
    assert clock.leaves_another(progress, 1, 5)


def test_a_fit_ends_in_time_and_is_whole(images, new_images):
    classifier = DiffMICClassifier(**small(time_limit=4, max_epochs=100_000))
    started = time.monotonic()
    with pytest.warns(DiffMICWarning, match=r"time_limit=4 ended the fit.* after \d+ of 100000"):
        classifier.fit(*images)
    assert time.monotonic() - started < 20  # on a busy machine
    assert {row["stage"] for row in classifier.history_} == {"prior", "diffusion"}
    assert set(classifier.validation_scores_) == {"prior", "diffusion", "diffusion_alone"}
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()


def test_no_time_at_all_is_a_step_of_each_stage(images, new_images):
    classifier = DiffMICClassifier(**small(time_limit=1e-3))
    with pytest.warns(DiffMICWarning, match=r"time_limit=0.001 ended the fit early"):
        classifier.fit(*images)
    assert [row["stage"] for row in classifier.history_] == ["prior", "diffusion"]
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()


def test_after_a_limit_a_fit_can_go_on(images, tmp_path):
    parameters = small(checkpoint_dir=tmp_path, max_epochs=2)
    with pytest.warns(DiffMICWarning, match="ended the fit early"):
        DiffMICClassifier(**parameters, time_limit=1e-3).fit(*images)
    classifier = DiffMICClassifier(**parameters).fit(*images, resume=True)
    stages = [(row["stage"], row["epoch"]) for row in classifier.history_]
    assert stages == [("prior", 1), ("diffusion", 1), ("diffusion", 2)]


def test_enough_time_changes_nothing(images):
    histories = [
        [
            {**row, "seconds": 0}
            for row in DiffMICClassifier(**small(time_limit=limit)).fit(*images).history_
        ]
        for limit in (None, 1e4)
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("limit", [0, -1, "60", float("nan"), float("inf"), True])
def test_a_limit_is_a_number_of_seconds(limit, images):
    with pytest.raises(InputError, match=r"time_limit is .* a number of seconds above 0"):
        DiffMICClassifier(**small(time_limit=limit)).fit(*images)
