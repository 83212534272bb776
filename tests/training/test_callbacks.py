"""Callbacks: their moments, how they stop a fit, and that they change nothing else."""

import copy
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.callbacks import Callback, Moment, StopTraining

pytestmark = pytest.mark.filterwarnings("ignore:On the validation part", "ignore:There was no val")

# Of 60 images 45 are learnt from, in batches of 32: two steps an epoch; stage two has ten.
X, y = stripes(60)
N_STEPS = {"prior": 2, "diffusion": 10}
BOTH = [("prior", 1), ("prior", 2), ("diffusion", 1), ("diffusion", 2)]


def fitted(callbacks, **options):
    return DiffMICClassifier(**small(max_epochs=2, callbacks=callbacks, **options)).fit(X, y)


class Diary(Callback):
    """Keeps every moment."""

    def __init__(self):
        self.seen = []

    def note(self, name, moment):
        assert isinstance(moment, Moment)
        self.seen.append((name, moment))

    def on_fit_start(self, moment):
        self.note("fit start", moment)

    def on_step_end(self, moment):
        self.note("step", moment)

    def on_epoch_end(self, moment):
        self.note("epoch", moment)

    def on_stage_end(self, moment):
        self.note("stage", moment)

    def on_fit_end(self, moment):
        self.note("fit end", moment)

    def of(self, name):
        return [moment for found, moment in self.seen if found == name]


class At(Callback):
    """Does something at one moment."""

    def __init__(self, name, does, *, stage=None, epoch=None, step=None):
        self.name, self.does, self.where = name, does, (stage, epoch, step)

    def act(self, name, moment):
        here = (moment.stage, moment.epoch, moment.step)
        if name == self.name and all(w in (None, h) for w, h in zip(self.where, here, strict=True)):
            if isinstance(self.does, BaseException):
                raise self.does
            return self.does
        return None

    def on_fit_start(self, moment):
        return self.act("on_fit_start", moment)

    def on_step_end(self, moment):
        return self.act("on_step_end", moment)

    def on_epoch_end(self, moment):
        return self.act("on_epoch_end", moment)

    def on_stage_end(self, moment):
        return self.act("on_stage_end", moment)

    def on_fit_end(self, moment):
        return self.act("on_fit_end", moment)


def rows(clf):
    return [(row["stage"], row["epoch"]) for row in clf.history_]


def same_weights(one, other):
    state, others = one.network_.state_dict(), other.network_.state_dict()
    return all(torch.equal(state[name], others[name]) for name in state)


@pytest.fixture(scope="module")
def plain():
    return fitted(None)


@pytest.fixture(scope="module")
def watched():
    diary = Diary()
    return fitted([diary]), diary


def test_moments_come_in_their_order_and_know_where_they_are(watched):
    diary = watched[1]
    expected = [("fit start", None, 0, 0)]
    for stage, n_steps in N_STEPS.items():
        for epoch in (1, 2):
            expected += [("step", stage, epoch, step + 1) for step in range(n_steps)]
            expected.append(("epoch", stage, epoch, n_steps))
        expected.append(("stage", stage, 2, 0))
    expected.append(("fit end", None, 0, 0))
    assert [(name, m.stage, m.epoch, m.step) for name, m in diary.seen] == expected
    assert all(m.n_steps == N_STEPS[m.stage] and m.max_epochs == 2 for m in diary.of("epoch"))


def test_moments_tell_metrics_history_and_time(watched):
    clf, diary = watched
    for number, (moment, row) in enumerate(zip(diary.of("epoch"), clf.history_, strict=True)):
        told = {k: v for k, v in row.items() if k not in ("stage", "epoch", "seconds")}
        assert moment.metrics == told
        assert list(moment.history) == clf.history_[: number + 1]
        losses = [m.metrics["train_loss"] for m in diary.of("step")
                  if (m.stage, m.epoch) == (moment.stage, moment.epoch)]  # fmt: skip
        assert moment.metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    end = diary.of("fit end")[0]
    assert end.metrics["diffusion_nll"] == clf.validation_scores_["diffusion"]["nll"]
    assert end.ended_by is None
    seconds = [moment.seconds for _, moment in diary.seen]
    assert seconds == sorted(seconds)
    assert seconds[-1] > 0
    assert all(moment.remaining > 0 for moment in diary.of("epoch"))


class Rude(Diary):
    """Draws from every global generator, writes into what it gets, and predicts."""

    def note(self, name, moment):
        super().note(name, copy.deepcopy(moment))
        torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
        torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
        for row in moment.history:
            row.clear()
        moment.metrics.clear()


def test_results_are_the_same_bit_for_bit_with_and_without_callbacks(plain, watched):
    rude = fitted([Rude(), Rude()], verbose=2)
    for clf in (watched[0], rude):
        assert same_weights(clf, plain)
        np.testing.assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))
        for row, other in zip(clf.history_, plain.history_, strict=True):
            assert row | {"seconds": 0} == other | {"seconds": 0}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (dict(name="on_step_end", stage="prior", step=1), BOTH[:1] + BOTH[2:]),
        (dict(name="on_epoch_end", stage="prior"), BOTH[:1] + BOTH[2:]),
        (dict(name="on_epoch_end"), [("prior", 1), ("diffusion", 1)]),
        (dict(name="on_stage_end"), BOTH[:2]),
        (dict(name="on_step_end", stage="diffusion", epoch=2), None),
    ],
)  # fmt: skip
def test_true_stops_the_stage_or_after_a_stage_the_fit(where, expected, plain):
    diary = Diary()
    clf = fitted([diary, At(does=True, **where)])
    assert rows(clf) == (expected or rows(plain))
    assert clf.validation_scores_  # calibrated
    assert clf.predict_proba(X[:2], stage="prior").shape == (2, 3)
    assert [m.stage for m in diary.of("stage")] == list(dict.fromkeys(r[0] for r in rows(clf)))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (dict(name="on_step_end"), [("prior", 1)]),
        (dict(name="on_epoch_end"), [("prior", 1)]),
        (dict(name="on_stage_end"), BOTH[:2]),
        (dict(name="on_epoch_end", stage="diffusion"), BOTH[:3]),
        (dict(name="on_fit_end"), BOTH),
    ],
)  # fmt: skip
def test_stop_training_ends_the_fit_which_is_calibrated(where, expected):
    diary = Diary()
    clf = fitted([At(does=StopTraining(), **where), diary])
    assert rows(clf) == expected
    assert set(clf.calibrations_) == {"prior", *[r[0] for r in expected]}
    assert clf.validation_scores_
    ended = where["name"] != "on_fit_end"
    assert diary.of("fit end")[0].ended_by == ("StopTraining" if ended else None)


@pytest.mark.parametrize("does", [StopTraining("enough"), True])
def test_a_fit_that_is_stopped_before_it_begins_has_learnt_nothing(does, plain):
    clf = copy.copy(plain).set_params(callbacks=At("on_fit_start", does))
    with pytest.raises(StopTraining, match=r"enough|returned True in on_fit_start"):
        clf.fit(X, y)
    assert clf.model_ is plain.model_


def test_the_stopped_stage_has_its_best_state(plain):
    """The prior is stopped after its second epoch of three, and is that of a fit of two."""
    recipe = replace(RECIPE, schedule="cosine")
    diary = Diary()
    callbacks = [At("on_epoch_end", True, epoch=2), diary]
    DiffMICClassifier(**small(recipe=recipe, callbacks=callbacks)).fit(X, y)
    best = max(diary.of("epoch")[:2], key=lambda m: m.metrics["validation_score"])
    assert diary.of("stage")[0].metrics == best.metrics


# --- Pruning, and other exceptions --------------------------------------------------------------


class TrialPruned(Exception):
    """As optuna's."""


class Trial:
    """A stand-in for a trial of optuna."""

    def __init__(self, prune_at):
        self.reported, self.prune_at = {}, prune_at

    def report(self, value, step):
        assert step not in self.reported
        self.reported[step] = value

    def should_prune(self):
        return len(self.reported) == self.prune_at


class Pruning(Callback):
    def __init__(self, trial):
        self.trial = trial

    def on_epoch_end(self, moment):
        self.trial.report(moment.metrics["validation_nll"], step=len(moment.history))
        if self.trial.should_prune():
            raise TrialPruned(f"at {moment.stage} {moment.epoch}")


@pytest.mark.parametrize("prune_at", [1, 3])
def test_a_trial_is_pruned_and_what_was_learnt_is_kept(prune_at):
    trial, diary = Trial(prune_at), Diary()
    clf = DiffMICClassifier(**small(max_epochs=2, callbacks=[Pruning(trial), diary]))
    with pytest.raises(TrialPruned, match=["prior 1", "", "diffusion 1"][prune_at - 1]) as caught:
        clf.fit(X, y)
    assert "what was learnt until then is kept" in caught.value.__notes__[0]
    assert len(clf.history_) == prune_at == len(trial.reported)
    assert [row["validation_nll"] for row in clf.history_] == list(trial.reported.values())
    assert clf.validation_scores_
    assert diary.of("fit end")[0].ended_by == "TrialPruned"


@pytest.mark.parametrize("name", ["on_fit_start", "on_step_end", "on_epoch_end", "on_stage_end"])
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt("mine")])
def test_an_exception_of_a_callback_goes_on_to_the_caller(name, error):
    diary = Diary()
    clf = DiffMICClassifier(**small(max_epochs=2, callbacks=[diary, At(name, error)]))
    with pytest.raises(type(error), match="mine"):
        clf.fit(X, y)
    learnt = name in ("on_epoch_end", "on_stage_end")
    assert ("model_" in vars(clf)) == learnt
    assert diary.of("fit end")[0].ended_by == type(error).__name__


def test_every_callback_gets_the_end_of_the_fit_and_nothing_is_lost_if_one_fails_there(plain):
    diary = Diary()
    clf = DiffMICClassifier(
        **small(max_epochs=2, callbacks=[At("on_fit_end", OSError("disk")), diary])
    )
    with pytest.raises(OSError, match="disk"):
        clf.fit(X, y)
    assert len(diary.of("fit end")) == 1
    assert same_weights(clf, plain)
    assert clf.validation_scores_


# --- As a parameter ------------------------------------------------------------------------------


class Misspelt(Callback):
    def on_epoch_finish(self, moment):
        pass


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Diary, r"Diary'>, a class; give an instance of it: Diary\(\.\.\.\)"),
        ([Diary(), Diary], r"callbacks\[1\] is .* a class"),
        (print, "derived from diffmic.callbacks.Callback"),
        ([lambda moment: None], r"callbacks\[0\] is .* derived from"),
        ("early stopping", "callbacks is 'early stopping'"),
        (iter([Diary()]), "callbacks is <list_iterator"),
        ([[Diary()]], r"callbacks\[0\] is \["),
        (5, "callbacks is 5"),
        (Misspelt(), "has a method on_epoch_finish.* Did you mean on_epoch_end"),
        ([Misspelt()], "has a method on_epoch_finish.* Did you mean on_epoch_end"),
    ],
)
def test_what_is_no_callback_is_refused_before_the_work(callbacks, message):
    with pytest.raises(InputError, match=message):
        fitted(callbacks)


@pytest.mark.parametrize("answer", ["stop", 1, {"a": 1}])
def test_an_answer_that_is_no_truth_value_is_refused(answer):
    with pytest.raises(InputError, match=r"At.on_step_end returned .*; return None"):
        fitted(At("on_step_end", answer))


@pytest.mark.parametrize("answer", [False, np.False_, None])
def test_answers_that_go_on(answer, plain):
    assert rows(fitted((At("on_step_end", answer),))) == rows(plain)


def test_numpys_true_stops_too():
    assert rows(fitted(At("on_epoch_end", np.True_))) == [("prior", 1), ("diffusion", 1)]


def test_clone_pickle_and_grid_search_copy_callbacks():
    diary = Diary()
    clf = DiffMICClassifier(**small(max_epochs=1, callbacks=[diary]))
    assert clf.get_params()["callbacks"] == [diary]
    copied = clone(clf)
    assert copied.callbacks[0] is not diary
    copied.fit(X, y)
    assert not diary.seen
    back = pickle.loads(pickle.dumps(copied))  # callbacks, too
    assert len(back.callbacks[0].seen) == len(copied.callbacks[0].seen) > 0
    np.testing.assert_array_equal(back.predict_proba(X[:4]), copied.predict_proba(X[:4]))
    search = GridSearchCV(clf, {"n_draws": [1, 2]}, cv=2).fit(X, y)
    assert not diary.seen
    assert search.best_estimator_.callbacks[0].of("fit end")


def test_callbacks_are_never_saved(watched, plain, tmp_path):
    watched[0].save_pretrained(tmp_path / "watched")
    assert "callbacks" not in (tmp_path / "watched" / "config.json").read_text()
    back = DiffMICClassifier.from_pretrained(tmp_path / "watched", backbone=TinyBackbone())
    assert back.callbacks is None


def test_without_callbacks_a_step_is_not_looked_at():
    """No loss is read, which a GPU would wait for."""
    from diffmic.training.watch import Watch

    class Unread:
        def __float__(self):
            raise AssertionError

    class EpochsAlone(Callback):
        def on_epoch_end(self, moment):
            pass

    for watch in (Watch(), Watch(verbose=0, callbacks=[EpochsAlone()])):
        watch.stage_starts("prior", 0, 2, 5)
        assert watch.step_ends(Unread()) is False
