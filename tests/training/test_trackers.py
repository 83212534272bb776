"""Trackers, with stand-ins that have Accelerate's protocol."""

import builtins
import pickle

import numpy as np
import pytest
from tiny import small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.callbacks import Trackers

tracking = pytest.importorskip("accelerate.tracking")

pytestmark = pytest.mark.filterwarnings(
    "ignore:On the validation part", "ignore:.*no supported trackers are currently installed"
)
X, y = stripes(60)


class Notes(tracking.GeneralTracker):
    name, requires_logging_directory, tracker = "notes", False, None

    def __init__(self, fails_at=None):
        super().__init__()
        self.config, self.logged, self.finished, self.fails_at = None, [], 0, fails_at

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        if step == self.fails_at:
            raise ConnectionError("no route to host")
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def fit(*trackers, **options):
    callbacks = [Trackers(list(trackers), **options)]
    return DiffMICClassifier(**small(max_epochs=2, callbacks=callbacks)).fit(X, y)


def test_trackers_get_config_every_epoch_and_the_final_metrics():
    notes = Notes()
    clf = fit(notes, config={"rate": 0.1, "site": "A", "backbone": np.zeros(2), "none": None})
    assert notes.config == {"rate": 0.1, "site": "A", "backbone": "[0. 0.]", "none": None}
    assert [step for step, _ in notes.logged] == [1, 2, 3, 4, 4]
    for (_, values), row in zip(notes.logged, clf.history_, strict=False):
        assert values[f"{row['stage']}/validation_nll"] == row["validation_nll"]
        assert values[f"{row['stage']}/train_loss"] == row["train_loss"]
    final = notes.logged[-1][1]
    assert final["final/diffusion_nll"] == clf.validation_scores_["diffusion"]["nll"]
    assert notes.finished == 1
    plain = DiffMICClassifier(**small(max_epochs=2)).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X[:5]), plain.predict_proba(X[:5]))
    pickle.loads(pickle.dumps(clf.set_params(callbacks=[Trackers("tensorboard", "runs")])))


def test_a_tracker_that_fails_is_left_out_and_the_fit_goes_on():
    failing, notes = Notes(fails_at=2), Notes()
    with pytest.warns(DiffMICWarning, match="tracker 'notes' failed.*ConnectionError: no route"):
        clf = fit(failing, notes)
    assert [step for step, _ in failing.logged] == [1]
    assert len(notes.logged) == 5
    assert clf.validation_scores_


@pytest.mark.parametrize(
    ("log_with", "message"),
    [
        ("tensorbord", "log_with is 'tensorbord'.*Unsupported logging capability"),
        ("tensorboard", "folder is None.*logging_dir|package of 'tensorboard' is not installed"),
        ("dvclive", "package of 'dvclive' is not installed"),
    ],
)
def test_trackers_that_cannot_be_used_are_refused_before_training(log_with, message):
    clf = DiffMICClassifier(**small(callbacks=Trackers(log_with)))
    with pytest.raises(InputError, match=message):
        clf.fit(X, y)
    assert not hasattr(clf, "model_")


def test_without_accelerate_and_beside_processes_of_torchrun_there_is_a_clear_error(monkeypatch):
    clf = DiffMICClassifier(**small(callbacks=Trackers(Notes())))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one of several processes of torchrun"):
        clf.fit(X, y)
    monkeypatch.delenv("WORLD_SIZE")
    found = builtins.__import__

    def missing(name, *more):
        if name == "accelerate":
            raise ImportError(name)
        return found(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'diffmic\[accelerate\]'"):
        clf.fit(X, y)
