"""The loop: epochs, the best state, patience, divergence."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from diffmic import TrainingDivergedError
from diffmic.random import LocalRNG
from diffmic.training.diffusion_stage import moving_average
from diffmic.training.loop import train
from diffmic.training.precision import MixedPrecision
from diffmic.training.state import LoopState
from diffmic.training.watch import Watch


class Counter(nn.Module):
    """Its weight grows by 1 with each step of gradient descent."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self.losses = []

    def forward(self, *batch):
        self.epochs += 1
        loss = -self.weight
        return loss * self.losses.pop(0) if self.losses else loss


PRECISION = MixedPrecision(torch.device("cpu"))


def state_of(learner, *, history=None, horizon=None):
    """A state whose learner takes steps of 1, with or without a moving average."""
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    return LoopState(
        "prior",
        learner,
        optimizer,
        torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        LocalRNG(0),
        PRECISION.scaler(),
        moving_average(learner, horizon, total_steps=10),
        history=[] if history is None else history,
    )


def run(
    scores=None, *, learner=None, max_epochs=5, patience=10, history=None, batches=None, watch=None
):
    """Train a Counter, one step an epoch, under given validation scores."""
    learner = Counter() if learner is None else learner
    remaining = None if scores is None else iter(scores)
    train(
        state_of(learner, history=history),
        learner,
        batches or (lambda epoch: [()]),
        evaluate=None if scores is None else (lambda: {"score": next(remaining), "nll": 0.5}),
        precision=PRECISION,
        max_epochs=max_epochs,
        patience=patience,
        watch=watch,
    )
    return learner.weight.item()


@pytest.mark.parametrize(
    ("scores", "best"), [([1, 3, 2, 2, 2], 2), ([5, 1, 1, 1, 1], 1), ([1, 2, 3, 4, 5], 5)]
)
def test_the_state_with_the_best_score_is_kept(scores, best):
    learner = Counter()
    assert run(scores, learner=learner) == best
    assert int(learner.epochs) == best  # buffers, too


def test_of_equal_scores_the_first_is_kept():
    assert run([2, 2, 2, 2, 2]) == 1


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 5), (4, 5)])
def test_training_stops_after_as_many_epochs_without_gain(patience, epochs):
    history = []
    assert run([1, 2, 0, 0, 0], patience=patience, history=history) == 2
    assert len(history) == epochs


def test_without_patience_the_last_state_is_kept():
    history = []
    assert run([5, 1, 1, 1, 1], patience=None, history=history) == 5
    assert len(history) == 5


@pytest.mark.parametrize("patience", [1, None])
def test_without_validation_all_epochs_run_and_the_last_state_is_kept(patience):
    history = []
    assert run(None, patience=patience, history=history) == 5
    assert len(history) == 5
    assert "validation_score" not in history[0]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("patience", [10, None])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_score_that_is_not_finite_stops_training_with_the_best_state(bad, patience, before):
    learner, history = Counter(), []
    message = f"outputs of the prior stage in evaluation mode .* in epoch {before + 1};"
    with pytest.raises(TrainingDivergedError, match=message):
        run([*[1, 3, 2][:before], bad], learner=learner, history=history, patience=patience)
    assert learner.weight.item() == (min(before, 2) if patience else before)
    assert len(history) == before


def test_without_validation_the_last_batch_is_looked_at_in_evaluation_mode():
    class Overflowing(Counter):
        """Its loss is infinite in evaluation mode, from the third epoch on."""

        def forward(self):
            loss = super().forward()
            return loss * math.inf if not self.training and self.weight > 2 else loss

    learner, history = Overflowing(), []
    with pytest.raises(TrainingDivergedError, match=r"in evaluation mode .* in epoch 3;"):
        run(None, learner=learner, history=history)
    assert (learner.weight.item(), len(history)) == (2, 2)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("patience", [10, None])
@pytest.mark.parametrize(("epoch", "kept"), [(1, 1), (2, 1), (4, 2)])
def test_an_epoch_whose_validation_is_interrupted_was_learnt(reason, patience, epoch, kept):
    """It is kept if there is no better one, or if the last one is wanted anyway."""

    class Scores:
        found = iter([1, 3, 2])

        def __iter__(self):
            return self

        def __next__(self):
            if len(history) == epoch - 1:
                raise reason
            return next(self.found)

    learner, history = Counter(), []
    with pytest.raises(reason):
        run(Scores(), learner=learner, history=history, patience=patience)
    assert learner.weight.item() == (kept if patience else epoch)
    assert [row["epoch"] for row in history] == [*range(1, epoch + 1)]
    assert "validation_score" not in history[-1]


@pytest.mark.parametrize("where", ["set_description_str", "refresh"])
def test_a_progress_bar_that_fails_loses_nothing(where, monkeypatch):
    def failing(*_, **__):
        raise BrokenPipeError

    watch = Watch(verbose=1)
    watch.stage_starts("prior", 0, 2, 1)
    monkeypatch.setattr(f"diffmic.training.progress.tqdm.{where}", failing)
    monkeypatch.setattr(watch, "stage_starts", lambda *_: None)
    learner, history = Counter(), []
    with pytest.raises(BrokenPipeError):
        run([1, 2], max_epochs=2, learner=learner, history=history, watch=watch)
    assert learner.weight.item() == len(history) >= 1


@pytest.mark.parametrize("name", ["state_dict", "load_state_dict"])
def test_ctrl_c_while_a_state_is_copied_leaves_a_whole_one(name, monkeypatch):
    learner, history = Counter(), []
    copy_state, calls = getattr(learner, name), []

    def interrupted(*arguments, **options):
        calls.append(name)
        if len(calls) == (3 if name == "state_dict" else 1):
            if name == "load_state_dict":
                learner.weight.data.fill_(99.0)
            raise KeyboardInterrupt
        return copy_state(*arguments, **options)

    monkeypatch.setattr(learner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([1, 2, 0], learner=learner, history=history, max_epochs=3)
    assert learner.weight.item() in (1, 2)
    assert learner.weight.item() <= len(history)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_an_error_that_follows_from_weights_that_are_not_finite_is_named_by_its_cause(error):
    class Failing(Counter):
        """Its second loss is not finite; what follows fails for an obscure reason."""

        def forward(self):
            if not torch.isfinite(self.weight):
                raise error("probability tensor contains either `inf`, `nan` or element < 0")
            return super().forward()

    learner, history = Failing(), []
    learner.losses = [1.0, math.nan]
    with pytest.raises(TrainingDivergedError, match="loss of the prior stage became nan") as caught:
        run([1], learner=learner, history=history, batches=lambda epoch: [()] * (2 * epoch - 1))
    assert isinstance(caught.value.__cause__, error)
    assert (learner.weight.item(), len(history)) == (1, 1)


def test_history_gets_a_row_per_epoch():
    history = [{"stage": "before"}]
    run([1, 2], max_epochs=2, history=history)
    assert history[0] == {"stage": "before"}
    seconds = [row.pop("seconds") for row in history[1:]]
    assert all(s >= 0 for s in seconds)
    assert history[1:] == [
        {"stage": "prior", "epoch": 1, "train_loss": 0.0} | row(1),
        {"stage": "prior", "epoch": 2, "train_loss": -1.0} | row(2),
    ]


def row(score):
    return {"validation_score": score, "validation_nll": 0.5}


def test_the_train_loss_is_the_mean_over_the_batches():
    history = []
    assert run(None, batches=lambda epoch: [()] * 3, max_epochs=1, history=history) == 3
    assert history[0]["train_loss"] == -1


def test_batches_are_asked_for_by_the_number_of_the_epoch():
    asked = []
    run(None, batches=lambda epoch: asked.append(epoch) or [()], max_epochs=3)
    assert asked == [1, 2, 3]


def test_the_moving_average_follows_each_step_and_is_what_is_kept():
    learner = Counter()
    state = state_of(learner, horizon=0.2)  # of 10 steps: a decay of ½
    seen = []
    train(
        state,
        learner,
        lambda epoch: [()] * 2,
        evaluate=lambda: seen.append(state.kept.weight.item()) or {"score": 0.0},
        precision=PRECISION,
        max_epochs=3,
        patience=None,
    )
    expected = [1.0]  # the first average is a copy
    for weight in range(2, 7):
        expected.append((expected[-1] + weight) / 2)
    assert seen == pytest.approx(expected[1::2])
    assert learner.weight.item() == pytest.approx(expected[-1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("epoch", "kept"), [(1, 0), (2, 1), (4, 2)])
def test_a_loss_that_is_not_finite_stops_training_with_the_best_state(bad, epoch, kept):
    learner = Counter()
    learner.losses = [1.0] * (epoch - 1) + [bad]
    history = []
    with pytest.raises(TrainingDivergedError, match=f"prior stage .* in epoch {epoch}"):
        run([1, 2, 1, 1, 1], learner=learner, history=history)
    assert learner.weight.item() == kept
    assert len(history) == epoch - 1


def test_weights_that_are_not_finite_are_called_by_their_name():
    class Overflowing(Counter):
        """Its loss is finite, the step that follows is not."""

        def forward(self):
            return super().forward() * 1e30 * 1e30  # 0, of which the gradient is infinite

    learner = Overflowing()
    with pytest.raises(TrainingDivergedError, match="The weights of the prior stage became NaN or"):
        run(learner=learner)
    assert learner.weight.item() == 0


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_an_error_in_an_epoch_leaves_the_best_state_and_the_history_so_far(error):
    learner, history = Counter(), []

    def batches(epoch):
        yield ()
        if epoch == 3:
            raise error

    with pytest.raises(error):
        run([2, 1, 0], learner=learner, history=history, batches=batches)
    assert learner.weight.item() == 1
    assert [row["epoch"] for row in history] == [1, 2]


# --- Going on from a saved state ----------------------------------------------------------------


class Noisy(nn.Module):
    """A small network with dropout and batch norm, whose loss draws noise, too."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2)
        )

    def forward(self, rows, targets):
        blurred = rows + 0.1 * torch.randn_like(rows)
        return nn.functional.mse_loss(self.layers(blurred), targets)


def data_of(epoch):
    draw = torch.Generator().manual_seed(epoch)
    return [(torch.randn(6, 4, generator=draw), torch.randn(6, 2, generator=draw))] * 3


class Noticed(Exception):
    """Ends a loop in the middle."""


def learn(*, average, go_on=None, stop_after=None, max_epochs=5, scores=(3, 5, 4, 1, 2)):
    """Train a Noisy network; returns the state, or what was saved after an epoch."""
    with LocalRNG(7) as rng:
        learner = Noisy()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=0.05)
        total_steps = max_epochs * 3
        state = LoopState(
            "diffusion" if average else "prior",
            learner,
            optimizer,
            torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total_steps + 1),
            rng,
            PRECISION.scaler(),
            moving_average(learner, 0.3 if average else None, total_steps),
        )
        if go_on is not None:
            state.load_state_dict(go_on)

        def batches(epoch):
            if stop_after is not None and epoch > stop_after:
                saved.append(copy.deepcopy(state.state_dict()))
                raise Noticed
            return data_of(epoch)

        def evaluate():
            epoch = 1 + (state.history[-1]["epoch"] if state.history else 0)
            return {"score": float(scores[epoch - 1])}

        saved = []
        try:
            train(
                state,
                learner,
                batches,
                evaluate=evaluate,
                precision=PRECISION,
                max_epochs=max_epochs,
                patience=None if average else 10,
            )
        except Noticed:
            return saved[0]
    return state


def assert_same(one, other, where=""):
    """Equal to the last bit, whatever it is; but for the seconds of a history."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key != "seconds":
                assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


@pytest.mark.parametrize("average", [False, True], ids=["prior", "denoiser"])
def test_a_loop_that_goes_on_ends_as_if_it_had_never_stopped(average):
    undisturbed = learn(average=average)
    saved = learn(average=average, stop_after=2)
    assert saved["epoch"] == 2
    buffer = io.BytesIO()
    torch.save(saved, buffer)  # it is what a file can hold
    buffer.seek(0)
    gone_on = learn(average=average, go_on=torch.load(buffer, weights_only=True))
    assert_same(gone_on.state_dict(), undisturbed.state_dict())
    assert [row["epoch"] for row in gone_on.history] == [1, 2, 3, 4, 5]


def test_going_on_is_not_the_same_without_the_random_state():
    undisturbed = learn(average=False)
    saved = learn(average=False, stop_after=2)
    saved["rng"] = LocalRNG(7).state_dict() | {"cpu": LocalRNG(8).generator().get_state()}
    gone_on = learn(average=False, go_on=saved)
    with pytest.raises(AssertionError):
        assert_same(gone_on.state_dict(), undisturbed.state_dict())
