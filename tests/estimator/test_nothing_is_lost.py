"""What was learnt outlives what goes wrong after it; nothing overwrites a newer model."""

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from tiny import small, stripes
from torch import nn

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.engine import make
from diffmic.estimator import engines

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(40)


def classifier(**parameters):
    return DiffMICClassifier(**small(max_epochs=1, **parameters))


@pytest.mark.parametrize("reason", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_the_engine_is_made_keeps_the_model(reason, monkeypatch):
    def interrupted(*_):
        raise reason

    clf = classifier()
    monkeypatch.setattr(make, "folded", interrupted)
    with pytest.raises(reason):
        clf.fit(X, Y)
    assert clf.predict_proba(X[:2]).shape == (2, 3)


@pytest.mark.parametrize("reason", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_an_engine_that_cannot_be_made_is_said_and_predictions_run_the_network(reason, monkeypatch):
    def failing(*_):
        raise reason("no room")

    monkeypatch.setattr(make, "folded", failing)
    with pytest.warns(DiffMICWarning, match=r"could not be rewritten.*no room"):
        clf = classifier().fit(X, Y)
    assert clf.model_.engine.kind == "plain"
    assert clf.predict_proba(X[:2]).shape == (2, 3)


def test_one_variable_turns_all_rewriting_off(monkeypatch, tmp_path):
    def refused(*_):
        raise AssertionError("rewritten")

    monkeypatch.setenv("DIFFMIC_ENGINE", "plain")
    for name in ("folded", "PreparedDenoiser"):
        monkeypatch.setattr(make, name, refused)
    clf = classifier(backbone="test_resnet", pretrained=False).fit(X, Y)
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.model_.engine.kind == copy.deepcopy(clf).model_.engine.kind == "plain"
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_the_next_fit_keeps_the_kind_of_engine():
    clf = classifier().fit(X, Y).compile("plain")
    assert clf.fit(X, Y).model_.engine.kind == "plain"


@pytest.mark.parametrize("change", ["compile", "set_params"])
def test_a_fit_that_ends_while_an_engine_is_made_is_not_overwritten(change, monkeypatch):
    clf = classifier().fit(X, Y)
    begun, ended, slow = threading.Event(), threading.Event(), engines.prediction_engine

    def waiting(*arguments, **options):
        begun.set()
        ended.wait(60)
        return slow(*arguments, **options)

    call = clf.compile if change == "compile" else lambda: clf.set_params(precision="fp32")
    with monkeypatch.context() as patched:
        patched.setattr(engines, "prediction_engine", waiting)
        thread = threading.Thread(target=call)
        thread.start()
        assert begun.wait(60)
        patched.setattr(engines, "prediction_engine", slow)
        clf.fit(X[Y < 2], Y[Y < 2])
        ended.set()
        thread.join()
    assert clf.classes_.tolist() == [0, 1]
    assert clf.predict_proba(X[:2]).shape == (2, 2)


def test_parameters_that_the_model_cannot_take_are_not_set():
    clf = classifier().fit(X, Y)
    with pytest.raises(InputError, match="abacus"):
        clf.set_params(num_steps=7, device="abacus")
    assert (clf.device, clf.num_steps) == ("cpu", 3)


def test_numbers_of_numpy_are_saved(tmp_path):
    clf = classifier(
        backbone="test_resnet",
        pretrained=False,
        num_steps=np.int64(3),
        n_draws=np.int32(2),
        n_regions=np.int64(2),
        image_size=64,
    ).fit(X, Y)
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_a_validation_part_of_one_image_calibrates_nothing_and_the_user_hears_of_it():
    with pytest.warns(DiffMICWarning, match="no validation part of two images or more"):
        clf = classifier().fit(X, Y, validation_data=(X[:1], Y[:1]))
    assert clf.validation_scores_ == {}
    assert {c.temperature for c in clf.calibrations_.values()} == {1.0}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_fit_learns_whatever_the_callers_settings_of_gradients(context):
    expected = classifier().fit(X, Y).predict_proba(X)
    with context():
        clf = classifier().fit(X, Y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_an_autocast_of_the_caller_does_not_change_predictions():
    clf = classifier(feature_dim=64).fit(X, Y)
    expected = clf.predict_proba(X)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(clf.predict_proba(X), expected)


class Attending(nn.Module):
    """A backbone with dropout inside of attention, a transformer layer and an LSTM."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 8, stride=8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.4, batch_first=True)
            self.lstm = nn.LSTM(8, 4, 2, dropout=0.4, batch_first=True, bidirectional=True)

    def forward(self, images):
        maps = self.conv(images)
        tokens = maps.flatten(2).transpose(1, 2)
        p = 0.4 if self.training else 0.0
        attended = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=p)
        tokens = self.lstm(self.layer(tokens + attended))[0]
        return tokens.transpose(1, 2).unflatten(2, maps.shape[2:])


def test_dropout_inside_of_attention_and_recurrence_repeats_and_leaves_torchs_generator_alone():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clf = classifier(backbone=Attending(), precision="fp32").fit(X, Y)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(clf.predict_proba(X))
    np.testing.assert_array_equal(*found)


def test_grades_in_words_are_refused():
    words = np.array(["low", "medium", "high"])[Y]
    with pytest.raises(InputError, match=r"whose order is unknown.*class_names"):
        classifier(task="ordinal").fit(X, words)
