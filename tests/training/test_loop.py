"""The loop: epochs, the best state, patience, divergence."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffmic import TrainingDivergedError
from diffmic.training.loop import train


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


def run(scores=None, *, learner=None, max_epochs=5, patience=10, history=None, **options):
    """Train a Counter, one step an epoch, under given validation scores."""
    learner = Counter() if learner is None else learner
    remaining = None if scores is None else iter(scores)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    train(
        learner,
        options.pop("batches", lambda epoch: [()]),
        learner=learner,
        evaluate=None if scores is None else (lambda: {"score": next(remaining), "nll": 0.5}),
        accelerator=Accelerator(cpu=True),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        max_epochs=max_epochs,
        patience=patience,
        stage="prior",
        history=[] if history is None else history,
        verbose=0,
        **options,
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


def test_a_score_that_is_not_a_number_is_never_the_best():
    assert run([1, math.nan, 0.5, math.nan, 0.5]) == 1


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


def test_something_can_be_done_after_each_step():
    steps = []
    run(None, batches=lambda epoch: [()] * 2, max_epochs=3, after_step=lambda: steps.append(1))
    assert len(steps) == 6


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
    learner = Counter()

    def overflow():
        with torch.no_grad():
            learner.weight.fill_(math.inf)

    with pytest.raises(TrainingDivergedError, match="The weights of the prior stage became NaN or"):
        run(learner=learner, after_step=overflow)
    assert learner.weight.item() == 0
