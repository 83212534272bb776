"""What a fit tells: progress with an estimate of the time, log lines, the history as a frame."""

import io
import logging
import os
import pickle
import re
import sys
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tiny import RECIPE, TRAINING, small, stripes
from tqdm import tqdm

import diffmic.training.progress as progress_module
from diffmic import DiffMICClassifier, InputError
from diffmic.logs import bar
from diffmic.training.fit import phases
from diffmic.training.progress import Phase, Progress

pytestmark = pytest.mark.filterwarnings("ignore:On the validation part")
X, y = stripes(60)
LINE = re.compile(
    r"(prior|diffusion), epoch (\d) of 2: train_loss -?[\d.]+, validation_score -[\d.]+, "
    r"validation_nll [\d.]+, validation_accuracy [\d.]+; [\d.]+ s, \d+ s left"
)


def fit(**options):
    return DiffMICClassifier(**small(max_epochs=2, **options)).fit(X, y)


# --- Log lines ------------------------------------------------------------------------------------


def test_a_line_per_epoch_goes_through_logging_at_verbose_2(caplog, capfd):
    with caplog.at_level(logging.INFO, logger="diffmic"):
        fit(verbose=2)
    found = [LINE.fullmatch(record.getMessage()) for record in caplog.records]
    epochs = [match.groups() for match in found if match]
    assert epochs == [("prior", "1"), ("prior", "2"), ("diffusion", "1"), ("diffusion", "2")]
    assert {record.name for record in caplog.records} == {"diffmic.training"}
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert capfd.readouterr() == ("", "")  # a handler has them; no bar where there is no terminal


@pytest.mark.parametrize("verbose", [0, 1])
def test_at_verbose_0_and_1_lines_are_for_those_who_debug(caplog, verbose):
    with caplog.at_level(logging.DEBUG, logger="diffmic"):
        fit(verbose=verbose)
    assert sum(LINE.fullmatch(r.getMessage()) is not None for r in caplog.records) == 4
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_lines_go_to_standard_error_if_nobody_listens(capfd):
    logger = logging.getLogger("diffmic")
    before = logger.level, [*logger.handlers], logging.root.level, [*logging.root.handlers]
    fit(verbose=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert len(LINE.findall(err)) == 4
    assert "diffmic.training: calibration starts" in err
    after = logger.level, [*logger.handlers], logging.root.level, [*logging.root.handlers]
    assert after == before


def test_a_logger_that_the_program_has_silenced_stays_silent(capfd):
    logging.getLogger("diffmic").setLevel(logging.WARNING)
    try:
        fit(verbose=2)
    finally:
        logging.getLogger("diffmic").setLevel(logging.NOTSET)
    assert capfd.readouterr() == ("", "")


def test_the_library_never_prints_and_its_logger_has_a_null_handler():
    handlers = logging.getLogger("diffmic").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    root = Path(sys.modules["diffmic"].__file__).parent
    for file in root.rglob("*.py"):
        if file.relative_to(root).parts[0] not in ("app", "cli", "service"):  # programs
            assert not re.search(r"(?<!\w)print\(", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("verbose", [-1, 1.5, "2", None])
def test_verbose_is_a_whole_number(verbose):
    with pytest.raises(InputError, match=r"verbose is .*; it must be an integer of at least 0"):
        fit(verbose=verbose)


def test_verbose_may_be_a_truth_value(capfd):
    fit(verbose=False)
    assert capfd.readouterr() == ("", "")


# --- Progress ------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_time_that_remains_spans_all_phases_and_follows_what_was_measured(clock):
    progress = Progress()
    progress.start([Phase("prior", 4, 80, 20), Phase("encoding", 2, 50), Phase("diffusion", 5, 10)])
    assert progress.remaining is None
    progress.enter("prior", 4)
    clock.now = 10.0
    progress.within(0, 0.5)  # 40 of 100 in 10 s: 4 passes a second
    assert progress.remaining == pytest.approx(90 + 100 / 4 + 50 / 4)
    clock.now = 25.0
    progress.reached(1, {})
    assert progress.remaining == pytest.approx(75 + 100 / 4 + 50 / 4)
    progress.enter("encoding", 2)  # stage one stopped early
    assert progress.remaining == pytest.approx(100 / 4 + 50 / 4)
    clock.now = 75.0
    progress.within(0, 2.0)  # twice as slow as was thought
    assert progress.remaining == pytest.approx(50 / (200 / 75))
    progress.enter("diffusion", 5, done=3)  # goes on from a checkpoint
    clock.now = 76.0
    progress.reached(4, {})
    assert progress.remaining == pytest.approx(1.0)
    clock.now = 77.0
    progress.reached(5, {})
    assert progress.remaining == 0.0


def test_a_stage_that_is_left_out_is_not_waited_for(clock):
    progress = Progress()
    progress.start([Phase("prior", 4, 100), Phase("encoding", 1, 100)])
    progress.enter("encoding", 1)
    clock.now = 5.0
    progress.within(0, 0.5)
    assert progress.remaining == pytest.approx(5.0)


def test_the_phases_of_a_fit():
    options = replace(TRAINING, max_epochs=3, recipe=replace(RECIPE, denoiser_epochs=7))
    found = phases(options, 100, 20)
    assert [(phase.name, phase.rounds) for phase in found] == [
        *(("prior", 3), ("encoding", 1), ("diffusion", 7), ("calibration", 1))
    ]
    paper = replace(RECIPE, cached=False, n_cached_views=0)
    found = phases(replace(options, recipe=paper), 100, 0)
    assert [phase.name for phase in found] == ["prior", "diffusion"]


def test_the_bar_tells_stage_epoch_and_time_left(capfd):
    fit(verbose=1)
    out, err = capfd.readouterr()
    assert out == ""
    shown = re.split(r"[\r\n]", err)
    for words in (r"^prior 2/2 +\d+%.*\d\d:\d\d left, train_loss=.*val_accuracy=", r"^encoding",
                  r"^diffusion 1/2 .* left", r"^calibration .* left", r"^fitted 100%"):  # fmt: skip
        assert any(re.search(words, line) for line in shown), words


@pytest.mark.parametrize("seconds", [5, 50_000])
def test_in_80_columns_the_bar_stays_legible_and_no_figure_is_cut(clock, monkeypatch, seconds):
    stream = io.StringIO()
    monkeypatch.setattr(progress_module, "bar", partial(tqdm, file=stream, ncols=79))
    progress = Progress(shown=True)
    progress.start([Phase("diffusion", 12, 100)])
    progress.enter("diffusion", 12)
    clock.now = float(seconds)
    progress.reached(6, {"train_loss": 1.25, "val_nll": 1.125, "val_accuracy": 0.8125})
    line = stream.getvalue().split("\r")[-1].rstrip()
    assert len(line) <= 79
    assert re.match(r"diffusion 6/12 .*\|.{10,}\| .* left, .*val_accuracy=0.812$", line), line
    progress.close(whole=True)
    assert stream.getvalue().split("\r")[-1].startswith("fitted 100%|")


def test_a_bar_is_shown_in_a_terminal_that_does_not_know_its_size(monkeypatch):
    pytest.importorskip("termios", reason="needs a terminal of Unix")
    reading, writing = os.openpty()  # of 0 columns, as that of `script` in a job
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in bar(range(2), desc="reading"):
            pass
        shown = os.read(reading, 10_000).decode()
    os.close(reading)
    assert re.search(r"reading: 100%\|.{10,}\| 2/2", shown)


def test_a_bar_that_fails_while_it_calibrates_loses_nothing(monkeypatch):
    draw = Progress.draw

    def failing(self, values, number):
        if self.current is not None and self.current.name == "calibration":
            raise BrokenPipeError
        draw(self, values, number)

    monkeypatch.setattr(Progress, "draw", failing)
    clf = DiffMICClassifier(**small(max_epochs=1))
    with pytest.raises(BrokenPipeError):
        clf.fit(X, y)
    assert [row["stage"] for row in clf.history_] == ["prior", "diffusion"]


# --- History ------------------------------------------------------------------------------------


def test_history_is_a_list_and_a_frame():
    clf = fit()
    frame = clf.history_.to_frame()
    assert isinstance(clf.history_, list)
    assert frame.to_dict("records") == clf.history_
    assert frame.groupby("stage")["epoch"].max().to_dict() == {"prior": 2, "diffusion": 2}
    assert pickle.loads(pickle.dumps(clf.history_)).to_frame().equals(frame)
    without = DiffMICClassifier(**small(max_epochs=1, validation_fraction=None))
    with pytest.warns(UserWarning, match="There was no validation part"):
        frame = without.fit(X, y).history_.to_frame()
    assert list(frame) == ["stage", "epoch", "train_loss", "seconds"]
    assert len(type(clf.history_)().to_frame()) == 0


# --- The guide's example -------------------------------------------------------------------------


def test_the_example_with_optuna_prunes_in_a_stand_in(monkeypatch):
    pages = Path(__file__).parents[2] / "docs" / "guide.md"
    blocks = re.findall(r"```python\n(.*?)```", pages.read_text(encoding="utf-8"), re.S)
    (code,) = [block for block in blocks if "import optuna" in block]
    optuna, states = types.ModuleType("optuna"), []

    class Pruned(Exception):
        pass

    class Trial:
        def __init__(self):
            self.reported = []

        def suggest_float(self, name, low, high, *, log):
            return low

        def report(self, value, step):
            self.reported.append((step, value))

        def should_prune(self):
            return bool(states) and len(self.reported) == 1

    class Study:
        def optimize(self, objective, n_trials):
            for _ in range(2):
                trial = Trial()
                try:
                    states.append((len(trial.reported), objective(trial) > 0))
                except Pruned:
                    states.append((len(trial.reported), "pruned"))

    optuna.TrialPruned, optuna.create_study = Pruned, lambda direction: Study()
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    options = small(max_epochs=2)
    for name in ("learning_rate", "verbose", "random_state"):
        del options[name]
    exec(code, {"DiffMICClassifier": partial(DiffMICClassifier, **options), "X": X, "y": y})
    assert states == [(0, True), (1, "pruned")]
