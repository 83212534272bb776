"""Whatever ends a fit early (divergence, Ctrl-C, lack of memory), what was learnt is kept."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from tiny import RECIPE, TinyBackbone, small
from torch.utils.data import Dataset, get_worker_info

from diffmic import DiffMICClassifier, InputError, TrainingDivergedError
from diffmic.inference import Calibration
from diffmic.model import DiffMICNetwork
from diffmic.training.objectives import DenoiserObjective, PriorObjective

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


def rows(classifier, stage):
    return [row for row in classifier.history_ if row["stage"] == stage]


OBJECTIVES = {"prior": PriorObjective, "diffusion": DenoiserObjective}


def diverge(monkeypatch, stage, epoch):
    """Make the loss of a stage NaN from one of its epochs on."""
    objective = OBJECTIVES[stage]
    forward, train = objective.forward, objective.train
    epochs = []

    def counting(self, mode=True):
        epochs.append(mode)
        return train(self, mode)

    def failing(self, *batch):
        loss = forward(self, *batch)
        return loss * float("nan") if len(epochs) >= epoch else loss

    monkeypatch.setattr(objective, "train", counting)
    monkeypatch.setattr(objective, "forward", failing)


def interrupt(monkeypatch, stage, epoch):
    """Press Ctrl-C in one of a stage's epochs."""
    objective = OBJECTIVES[stage]
    train = objective.train
    epochs = []

    def counting(self, mode=True):
        epochs.append(mode)
        if len(epochs) == epoch:
            raise KeyboardInterrupt
        return train(self, mode)

    monkeypatch.setattr(objective, "train", counting)


@pytest.mark.parametrize("warm_start", [True, False])
def test_a_fit_that_learns_nothing_leaves_what_was_fitted_before(images, new_images, warm_start):
    classifier = DiffMICClassifier(**small(warm_start=warm_start)).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    with pytest.raises(TrainingDivergedError):
        classifier.set_params(learning_rate=1e30).fit(*images)
    assert_array_equal(classifier.predict_proba(new_images[0]), expected)


def test_an_interrupted_warm_start_still_has_its_diffusion_stage(images, new_images, monkeypatch):
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=4)).fit(*images)
    interrupt(monkeypatch, "prior", 3)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*images)
    assert len(rows(classifier, "prior")) == 2
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()


def test_an_interrupted_fit_keeps_the_epochs_that_it_had(images, new_images, monkeypatch):
    interrupt(monkeypatch, "diffusion", 3)
    classifier = DiffMICClassifier(**small(max_epochs=4))
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*images)
    assert (len(rows(classifier, "prior")), len(rows(classifier, "diffusion"))) == (4, 2)
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()
    assert set(classifier.validation_scores_) == {"prior", "diffusion", "diffusion_alone"}


@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize("stage", OBJECTIVES)
def test_a_loss_that_is_not_finite_stops_the_fit_and_the_last_good_state_is_kept(
    images, new_images, monkeypatch, stage, epoch
):
    diverge(monkeypatch, stage, epoch)
    recipe = replace(RECIPE, half_weights=False, ema=None)  # what was measured is what is kept
    classifier = DiffMICClassifier(**small(max_epochs=10, augment=None, recipe=recipe))
    with pytest.raises(TrainingDivergedError, match=f"{stage} stage .* in epoch {epoch};"):
        classifier.fit(*images, validation_data=new_images)
    if (stage, epoch) == ("prior", 1):  # nothing was learnt
        with pytest.raises(NotFittedError):
            classifier.predict(new_images[0])
        return
    assert len(rows(classifier, stage)) == epoch - 1
    for tensor in classifier.network_.state_dict().values():
        assert torch.isfinite(tensor).all()
    prior = classifier.predict_proba(new_images[0], stage="prior")
    assert np.isfinite(prior).all()
    for reached in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, reached)]
        if scores:
            nll = classifier.evaluate(*new_images)[reached]["nll"]
            assert nll == pytest.approx(-max(scores), abs=1e-5)
    if stage == "prior" or epoch == 1:
        with pytest.raises(NotFittedError, match="stage='prior'"):
            classifier.predict_proba(new_images[0])
    else:
        assert np.isfinite(classifier.predict_proba(new_images[0])).all()
        assert set(classifier.validation_scores_) == {"prior", "diffusion", "diffusion_alone"}


# --- An image source that fails ------------------------------------------------------------------


class Source(Dataset):
    """Images with their labels, which counts what is read; one of the reads raises an error."""

    def __init__(self, images, fails_at=None, error=None):
        self.images, self.fails_at, self.error = images, fails_at, error
        self.n_reads = 0

    def __len__(self):
        return len(self.images[0])

    def __getitem__(self, index):
        self.n_reads += 1
        if self.n_reads == self.fails_at:
            raise self.error
        return self.images[0][index], int(self.images[1][index])


# Every epoch of stage two reads the images, too.
UNCACHED = replace(RECIPE, cached=False, n_cached_views=0, denoiser_epochs=3, patience=None)


def failing_fit(images, error, *, reads_before_the_end, **parameters):
    """A fit that ends by an error of its image source, so many reads before it would be done."""
    parameters = small(max_epochs=2, augment=None, **parameters)
    source = Source(images)
    DiffMICClassifier(**parameters).fit(source)
    source = Source(images, source.n_reads - reads_before_the_end, error)
    classifier = DiffMICClassifier(**parameters)
    with pytest.raises((type(error), InputError)) as caught:
        classifier.fit(source)
    assert error in (caught.value, caught.value.__cause__)
    return classifier


ERRORS = pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), MemoryError("full"), OSError(5, "Input/output error")],
    ids=repr,
)


@ERRORS
def test_an_image_source_that_fails_during_the_last_calibration_loses_nothing(
    images, new_images, error
):
    classifier = failing_fit(images, error, reads_before_the_end=3)
    assert [len(rows(classifier, stage)) for stage in ("prior", "diffusion")] == [2, 2]
    assert set(classifier.calibrations_) == {"prior", "diffusion"}
    assert set(classifier.calibrations_.values()) == {Calibration()}  # there was none
    assert classifier.validation_scores_ == {}
    whole = DiffMICClassifier(**small(max_epochs=2, augment=None)).fit(*images)
    own, other = classifier.network_.state_dict(), whole.network_.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in other)
    for stage in ("prior", "diffusion"):
        assert np.isfinite(classifier.predict_proba(new_images[0], stage=stage)).all()


@ERRORS
def test_an_image_source_that_fails_before_stage_two_has_learnt_leaves_the_prior(
    images, new_images, error
):
    # The cache of conditions is two views of 45 images, then 15 are read to validate and calibrate.
    classifier = failing_fit(images, error, reads_before_the_end=15 + 15 + 20)
    assert [len(rows(classifier, stage)) for stage in ("prior", "diffusion")] == [2, 0]
    assert set(classifier.calibrations_) == set(classifier.validation_scores_) == {"prior"}
    assert classifier.calibrations_["prior"] != Calibration()
    assert np.isfinite(classifier.predict_proba(new_images[0], stage="prior")).all()
    with pytest.raises(NotFittedError, match="stage='prior'"):
        classifier.predict_proba(new_images[0])
    assert set(classifier.evaluate(*new_images)) == {"prior"}


@ERRORS
def test_an_image_source_that_fails_in_stage_two_leaves_the_epochs_before(
    images, new_images, error
):
    classifier = failing_fit(images, error, reads_before_the_end=60, recipe=UNCACHED)
    assert len(rows(classifier, "prior")) == 2
    assert 1 <= len(rows(classifier, "diffusion")) < 3
    assert set(classifier.validation_scores_) == {"prior", "diffusion", "diffusion_alone"}
    assert classifier.calibrations_["prior"] != Calibration()
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()


def test_an_image_source_that_fails_before_anything_is_learnt_leaves_an_unfitted_classifier(images):
    classifier = DiffMICClassifier(**small(augment=None))
    with pytest.raises(MemoryError):
        classifier.fit(Source(images, 70, MemoryError()))
    assert not hasattr(classifier, "model_")
    with pytest.raises(NotFittedError):
        classifier.predict(images[0])


# --- Overflow in evaluation mode -----------------------------------------------------------------


class Overflowing(TinyBackbone):
    """Its maps are finite while it is trained; in evaluation mode they are not, after a while."""

    def __init__(self, healthy):
        super().__init__()
        self.healthy = healthy
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, images):
        if self.training:
            self.steps += 1
        overflows = not self.training and self.steps > self.healthy
        return super().forward(images) * (float("inf") if overflows else 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("validation_fraction", [0.25, None])
@pytest.mark.parametrize("healthy", [0, 2])
def test_a_network_that_overflows_in_evaluation_mode_alone_has_diverged(
    images, new_images, validation_fraction, healthy, precision
):
    classifier = DiffMICClassifier(
        **small(
            # One step an epoch.
            backbone=Overflowing(healthy),
            batch_size=len(images[0]),
            validation_fraction=validation_fraction,
            precision=precision,
        )
    )
    with pytest.raises(
        TrainingDivergedError,
        match=rf"evaluation mode .* epoch {healthy + 1};.*Lower learning_rate",
    ):
        classifier.fit(*images)
    if not healthy:
        assert not hasattr(classifier, "model_")
        return
    assert len(rows(classifier, "prior")) == len(classifier.history_) == healthy
    assert np.isfinite(classifier.predict_proba(new_images[0], stage="prior")).all()


def test_a_diffusion_that_overflows_in_evaluation_mode_leaves_the_prior(
    images, new_images, monkeypatch
):
    def overflowing(network, *arguments, **options):
        return sample(network, *arguments, **options) * float("nan")

    sample = DiffMICNetwork.sample
    monkeypatch.setattr(DiffMICNetwork, "sample", overflowing)
    classifier = DiffMICClassifier(**small())
    message = r"diffusion stage in evaluation mode .* epoch 1;.*denoiser_learning_rate"
    with pytest.raises(TrainingDivergedError, match=message):
        classifier.fit(*images)
    assert set(classifier.calibrations_) == {"prior"}
    assert np.isfinite(classifier.predict_proba(new_images[0], stage="prior")).all()


# --- What ends a fit, wherever it comes from ---------------------------------------------------


def test_the_user_is_told_what_is_kept(images, monkeypatch):
    interrupt(monkeypatch, "diffusion", 3)
    with pytest.raises(KeyboardInterrupt) as caught:
        DiffMICClassifier(**small(max_epochs=4)).fit(*images)
    assert caught.value.__notes__ == [
        "diffmic: what was learnt until then is kept, and the estimator is fitted: 4 epochs of the "
        "prior, 2 of the diffusion."
    ]


class OutOfPaper(Exception):
    """An error that nobody expects."""


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_an_image_of_the_validation_part_that_cannot_be_read_leaves_the_epoch(
    images, new_images, stage
):
    """Stage one validates on every epoch's images; stage two, uncached, reads them once."""
    parameters = small(max_epochs=1, augment=None, recipe=UNCACHED)
    source = Source(new_images)
    DiffMICClassifier(**parameters).fit(*images, validation_data=source)
    n_reads = source.n_reads - len(source)  # all but those of the calibration
    fails_at = {"prior": n_reads - len(source), "diffusion": n_reads}[stage]
    source = Source(new_images, fails_at, OutOfPaper())
    classifier = DiffMICClassifier(**parameters)
    with pytest.raises(InputError, match=r"Item \d+ of the Dataset cannot be read: OutOfPaper"):
        classifier.fit(*images, validation_data=source)
    assert [len(rows(classifier, name)) for name in OBJECTIVES] == [1, int(stage == "diffusion")]
    assert np.isfinite(classifier.predict_proba(new_images[0], stage=stage)).all()


def test_a_transform_that_fails_late_loses_nothing(images, new_images):
    calls = []

    def augment(image):
        calls.append(image)
        if len(calls) == 200:
            raise OutOfPaper
        return image

    classifier = DiffMICClassifier(**small(max_epochs=20, augment=augment))
    with pytest.raises(OutOfPaper):
        classifier.fit(*images)
    assert len(classifier.history_) == 199 // 45
    assert np.isfinite(classifier.predict_proba(new_images[0], stage="prior")).all()


class Killed(Dataset):
    """A data set whose worker process is killed once, in an epoch after the first."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images[0])

    def __getitem__(self, index):
        self.reads += 1
        if get_worker_info() is not None and index == 0 and self.augmented():
            os._exit(1)
        return self.images[0][index], int(self.images[1][index])

    def augmented(self):
        return EPOCH.value > 1


EPOCH = SimpleNamespace(value=0)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_a_fit_whose_epochs_are_kept(images, new_images, monkeypatch):
    train = PriorObjective.train

    def counting(self, mode=True):
        EPOCH.value += mode
        return train(self, mode)

    monkeypatch.setattr(EPOCH, "value", 0)
    monkeypatch.setattr(PriorObjective, "train", counting)
    classifier = DiffMICClassifier(**small(num_workers=1))
    with pytest.raises(InputError, match="num_workers=0") as caught:
        classifier.fit(Killed(images), validation_data=new_images)
    assert any("1 epochs of the prior" in note for note in caught.value.__notes__)
    assert len(rows(classifier, "prior")) == 1
    assert np.isfinite(classifier.predict_proba(new_images[0], stage="prior")).all()
