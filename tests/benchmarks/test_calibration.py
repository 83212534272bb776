"""The calibration benchmark: what it adds up from kept answers is right."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import norm
from tiny import small, stripes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import calibration  # noqa: E402
from accuracy_bench.results import Answers, Results  # noqa: E402
from accuracy_bench.tasks import DataSet  # noqa: E402

from diffmic import DiffMICClassifier  # noqa: E402
from diffmic.tasks import MULTICLASS, ORDINAL  # noqa: E402
from diffmic.training.evaluation import Reading  # noqa: E402

pytestmark = pytest.mark.benchmarks
SHARES = np.array([0.7, 0.2, 0.1])


def answers(n=4000, seed=0):
    """Gaussian classes with their exact probabilities."""
    rng = np.random.RandomState(seed)
    y = rng.choice(3, n, p=SHARES)
    x = 1.5 * y + rng.randn(n)
    joint = SHARES * norm.pdf(x[:, None] - 1.5 * np.arange(3))
    proba = joint / joint.sum(axis=1, keepdims=True)
    return Answers(np.eye(3, dtype=int)[y], proba, np.empty(0), np.arange(n))


def test_shares_turned_round_are_corrected_for():
    as_they_are, true, estimated, error = calibration.of_shift(answers(), SHARES)
    assert true < as_they_are - 0.2
    assert estimated == pytest.approx(true, abs=0.02)
    assert error < 0.05


def test_decisions_are_told_class_by_class(tmp_path, capsys):
    kept, one = Results(tmp_path / "accuracy.csv"), answers(400)
    for method, shift in (("prior", 0.0), ("prior_tta", 0.5)):
        kept.add({"set": "ham10000", "seed": 0, "method": method, "part": "test"})
        proba = one.proba + shift * np.array([1, 0, 0])  # towards the most frequent class
        kept.keep("ham10000", 0, method, Answers(one.targets, proba, one.thresholds, one.groups))
    calibration.views(results=tmp_path / "accuracy.csv")
    without, with_views = (
        [float(cell) for cell in re.findall(r"\d\.\d+", line)]
        for line in capsys.readouterr().out.splitlines()[2:]
    )
    assert without[1] < without[2]  # the rarest class has the smallest F1
    assert with_views[5] > without[5]  # recalls
    assert with_views[7] < without[7]
    assert with_views[1] < without[1]


@pytest.mark.filterwarnings("ignore:On the")
def test_a_model_is_calibrated_anew_and_measured_on_the_other_images(tmp_path, monkeypatch, capsys):
    X, y = stripes(60)
    (tmp_path / "stripes").mkdir()
    lines = ["file,label,split"]
    for number, (image, label) in enumerate(zip(X, y, strict=True)):
        Image.fromarray(image).save(tmp_path / "stripes" / f"{number}.png")
        lines.append(f"{number}.png,{label},test")
    (tmp_path / "stripes" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setitem(calibration.DATA_SETS, "stripes", DataSet("stripes", 64, 1))
    DiffMICClassifier(**small(max_epochs=1, backbone="test_resnet", pretrained=False)).fit(
        X, y
    ).save_pretrained(tmp_path / "model")
    calibration.anew(str(tmp_path / "model"), tmp_path, name="stripes", sizes=[20], n_draws=2)
    cells = capsys.readouterr().out.splitlines()[2].split("|")
    assert [cell.strip() for cell in cells[1:3]] == ["20", "40"]
    assert all(0 <= float(cell.split("±")[0]) < 2 for cell in cells[3:7])


def test_errors_are_printed_for_each_method_that_was_kept(tmp_path, capsys):
    kept = Results(tmp_path / "accuracy.csv")
    kept.add({"set": "busi", "seed": 0, "method": "prior", "part": "test"})
    kept.keep("busi", 0, "prior", answers(300))
    calibration.errors(tmp_path / "accuracy.csv", n_resamples=20)
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line.startswith("| busi | prior | 1 | 300 | 0.0")
    assert line.count("chance") == 2


def test_decisions_by_cut_points_are_set_beside_the_most_probable_grade(tmp_path, capsys):
    kept = Results(tmp_path / "runs.csv")
    targets = np.eye(3, dtype=int)[[0, 1, 2, 2]]
    proba = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.1, 0.5, 0.4]])
    kept.add({"set": "aptos", "seed": 0, "method": "prior", "part": "test"})
    kept.keep("aptos", 0, "prior", Answers(targets, proba, np.array([0.5, 1.2]), np.arange(4)))
    calibration.decisions(results=kept.file)
    row = capsys.readouterr().out.splitlines()[-1]
    # Most probable: 0 1 0 1, kappa 1 - 1.25 / 1.5. Expected grades 0.3, 1.1, 1.0 and 1.3: 0 1 1 2,
    # kappa 1 - 0.25 / 1.25.
    assert row == "| prior | 1 | 0.500, 0.444, 0.167 | 0.750, 0.778, 0.800 |"


def test_decisions_of_grades_are_cross_fitted():
    of = answers(600)
    reading = Reading(
        torch.from_numpy(np.log(of.proba)),
        None,
        torch.from_numpy(of.targets).float(),
        torch.ones(600),
        ORDINAL,
    )
    nll, decided = calibration.cross_fitted_decisions(reading, seed=0)
    truth = F.one_hot(torch.from_numpy(of.targets.argmax(axis=1)), 3).double()
    expected = F.cross_entropy(reading.logits, truth)
    assert nll == pytest.approx(float(expected), abs=0.03)
    assert [len(d) for d in decided] == [600] * 3
    assert all(set(d) <= {0, 1, 2} for d in decided)
    assert (decided[1] != decided[2]).any()


def test_a_penalty_on_unequal_weights_is_worth_more_the_fewer_the_images(tmp_path):
    """Logits as good as the prior's, with errors of their own: equal weights are the best."""
    rng = np.random.RandomState(0)
    file = tmp_path / "weights.csv"
    for seed, n in itertools.product(range(8), (30, 1000)):
        truth = torch.from_numpy(rng.randint(3, size=n))
        logits, prior = (2 * torch.eye(3)[truth] + torch.from_numpy(rng.randn(n, 3)) for _ in "ab")
        reading = Reading(logits, prior, torch.eye(3)[truth], torch.ones(n), MULTICLASS)
        run = {"set": f"{n} images", "seed": seed, "method": "diffusion", "image_size": 64}
        calibration.add_rows(file, run, reading)
    lines = calibration.weights_table(pd.read_csv(file)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][2:4] == ["30 images", "1000 images"]
    assert [row[1] for row in cells[2:]] == [f"{n}" for n in calibration.PENALTIES]
    few, many = ([float(row[i]) for row in cells[2:]] for i in (2, 3))
    assert few[0] - min(few) > 0.005
    assert few[0] - min(few) > 10 * (many[0] - min(many))
