"""The benchmark of what a distribution is for: its likelihoods are right, and the command runs."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny import stripes
from torch.nn.functional import one_hot
from typer.testing import CliRunner

from diffmic.model import Conditions
from diffmic.tasks import MULTILABEL, ORDINAL

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import distribution  # noqa: E402
from accuracy_bench import encoders  # noqa: E402
from accuracy_bench.beyond import label_sets  # noqa: E402
from accuracy_bench.encoders import Job  # noqa: E402
from accuracy_bench.methods import OURS, trained_diffusion  # noqa: E402
from accuracy_bench.tasks import DATA_SETS, DataSet, load  # noqa: E402
from distribution_bench import findings, jobs, neighbours, opinions, views  # noqa: E402
from distribution_bench.joint import (  # noqa: E402
    SCALED,
    all_label_sets,
    cross_fitted,
    dependence,
    dirichlet,
    mixture,
    number_of,
    tilted,
)

pytestmark = [
    pytest.mark.benchmarks,
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
]
AS_THEY_ARE = torch.tensor(SCALED, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_the_likelihood_of_label_sets_is_that_of_the_other_benchmark():
    draws, targets = normal(6, 4, 3).sigmoid(), (normal(6, 3, seed=1) > 0).double()
    found = mixture(draws.logit(), torch.zeros(6, 3), targets, MULTILABEL)(AS_THEY_ARE).mean()
    proba = draws.mean(dim=1).numpy()
    expected = label_sets(targets.numpy(), proba, draws.numpy())["set_nll_draws"]
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["independent", "over draws", "dirichlet", "both"])
def test_the_chances_of_all_opinions_of_three_raters_add_up_to_one(kind):
    logits = normal(1, 4 if kind in ("over draws", "both") else 1, 5)
    total = 0.0
    for named in itertools.product(range(5), repeat=3):
        counts = one_hot(torch.tensor(named), 5).sum(dim=0)[None].double()
        prior = torch.zeros(1, 5)
        if kind in ("dirichlet", "both"):
            losses = dirichlet(logits, prior, counts)(torch.tensor((*SCALED, 0.7)).double())
        else:
            losses = mixture(logits, prior, counts, ORDINAL)(AS_THEY_ARE)
        total += float((-losses).exp())
    assert total == pytest.approx(1)


def test_draws_that_differ_make_raters_agree_more_often_than_independent_ones():
    draws = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]]).double()
    agreed, prior = torch.tensor([[3.0, 0.0]]).double(), torch.zeros(1, 2)
    mean = draws.softmax(dim=-1).mean(dim=1, keepdim=True).log()
    together = mixture(draws, prior, agreed, ORDINAL)(AS_THEY_ARE)
    assert float(together) < float(mixture(mean, prior, agreed, ORDINAL)(AS_THEY_ARE)) - 0.5


def test_labels_that_come_in_pairs_are_likelier_together():
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 1]] * 200).double()
    ratio = dependence(targets)
    sets = all_label_sets(3)
    assert torch.equal(sets[number_of(targets)], targets)
    both, one = (number_of(torch.tensor([labels])) for labels in ([1, 1, 0], [1, 0, 0]))
    assert float(ratio[both]) > 0.3 > -0.3 > float(ratio[one])
    logits = normal(1, 1, 3).expand(8, 1, 3)
    losses = tilted(logits, torch.zeros(8, 3), sets, ratio)
    assert float((-losses(torch.tensor((*SCALED, 1.0)).double())).exp().sum()) == pytest.approx(1)
    untilted = losses(torch.tensor((*SCALED, 0.0)).double())
    expected = mixture(logits, torch.zeros(8, 3), sets, MULTILABEL)(AS_THEY_ARE)
    torch.testing.assert_close(untilted, expected)


def test_parameters_are_fitted_on_other_images():
    """Logits that are too sure are made less so, and a worthless prior gets no weight."""
    rng = np.random.RandomState(0)
    targets = torch.eye(3)[rng.randint(3, size=300)].double()
    logits = 8 * (targets + torch.from_numpy(rng.normal(size=(300, 3))))[:, None]
    losses = mixture(logits, torch.from_numpy(rng.normal(size=(300, 3))), targets, ORDINAL)
    found, parameters = cross_fitted(losses, (0.5, 0.5, 0.0), targets, 0)
    assert float(found.mean()) < float(losses(AS_THEY_ARE).mean()) - 0.5
    assert (parameters[:, 0] < 0.3).all()
    assert (parameters[:, 1] < 0.3).all()
    assert len(parameters[:, 0].unique()) == 5


def test_raters_name_the_published_grade_or_one_beside_it():
    grades = torch.eye(5).repeat(400, 1)
    found = opinions.opinions(grades, 0)
    assert torch.equal(found, opinions.opinions(grades, 0))
    assert not torch.equal(found, opinions.opinions(grades, 1))
    apart = (found.argmax(dim=2) - grades.argmax(dim=1)[:, None]).view(400, 5, 3)
    assert int(apart.abs().max()) == 1
    for grade, chance in enumerate(opinions.CHANCES):
        assert float((apart[:, grade] != 0).double().mean()) == pytest.approx(chance, abs=0.05)


def test_areas_of_doubt_are_scikit_learns_with_the_errors_of_a_bootstrap():
    rng = np.random.RandomState(0)
    disputed = torch.from_numpy(rng.rand(400) < 0.4)
    sharp = disputed + torch.from_numpy(rng.normal(size=400))
    doubts = {"usual": sharp + torch.from_numpy(rng.normal(size=400)), "sharp": sharp}
    found = {(r["method"], r.get("against")): r for r in opinions.areas(disputed, doubts, "usual")}
    expected = roc_auc_score(disputed, sharp) - roc_auc_score(disputed, doubts["usual"])
    ahead = found["sharp", "usual"]
    assert ahead["value"] == pytest.approx(expected)
    drawn = (torch.from_numpy(rng.randint(400, size=400)) for _ in range(300))
    resampled = [
        roc_auc_score(disputed[i], sharp[i]) - roc_auc_score(disputed[i], doubts["usual"][i])
        for i in drawn
    ]
    assert ahead["error"] == pytest.approx(np.std(resampled), rel=0.15)


def test_neighbours_do_not_count_the_image_itself(monkeypatch):
    monkeypatch.setattr(neighbours, "N_NEIGHBOURS", 2)
    features = torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1]])
    labels = torch.tensor([[0.0, 1], [1, 0], [1, 0], [0, 1]])
    found = neighbours.neighbour_labels(features, labels)
    assert found[0].tolist() == [1, 0]
    of = neighbours.neighbour_labels(features, labels, torch.tensor([[2.0, 0]]))
    assert of.tolist() == [[0.5, 0.5]]


def test_regions_of_all_views_are_those_of_one_image():
    alone = Conditions.of(normal(6, 2), normal(6, 4), region_features=normal(6, 3, 5))
    three = alone.map(lambda tensor: tensor.unflatten(0, (2, 3)))  # two images in three views
    reread = lambda image, regions, weights: (image[:, :2], regions[:, 0, :2] * weights[:, :1])  # noqa: E731
    found = views.side_by_side(three, SimpleNamespace(prior=SimpleNamespace(reread=reread)))
    assert found.region_features.shape == (2, 9, 5)
    assert torch.equal(found.region_features[1, 3:6], alone.region_features[4])
    assert torch.equal(found.image_features, three.image_features.mean(dim=1))
    assert torch.equal(found.global_logits, found.image_features[:, :2])
    torch.testing.assert_close(found.attention.sum(dim=1), torch.ones(2).double())


def write(folder, images, columns, rows):
    folder.mkdir(parents=True)
    lines = [columns]
    for number, (image, row) in enumerate(zip(images, rows, strict=True)):
        Image.fromarray(image).save(folder / f"{number}.png")
        split = "train" if number < 60 else "val" if number < 90 else "test"
        lines.append(f"{number}.png,{row},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Small data sets in place of the others, and a small network."""
    X, y = stripes(96)
    write(tmp_path / "data" / "grades", X, "file,label,split", y)
    found = [f"{int(c != 0)},{int(c == 1)},{i % 2}" for i, c in enumerate(y)]
    write(tmp_path / "data" / "marks", X, "file,a,b,c,split", found)
    monkeypatch.setitem(DATA_SETS, "grades", DataSet("grades", 64, 1, task="ordinal"))
    monkeypatch.setitem(DATA_SETS, "marks", DataSet("marks", 64, 1))
    small = {"backbone": "test_resnet", "pretrained": False, "n_draws": 2, "num_steps": 2}
    for name, value in small.items():
        monkeypatch.setitem(encoders.DEFAULTS, name, value)
    monkeypatch.setattr(jobs, "N_DRAWS", 3)
    for name, experiment in distribution.EXPERIMENTS.items():
        other = "marks" if name in ("sets", "twins") else "grades"
        changes = {"image_size": 64} if experiment.changes else {}
        tiny = replace(experiment, name=other, changes=changes)
        monkeypatch.setitem(distribution.EXPERIMENTS, name, tiny)
    return tmp_path


@pytest.mark.slow
def test_the_command_measures_all_and_its_table_tells(world):
    results = world / "deep" / "distribution.csv"
    command = ["run", "--data", str(world / "data"), "--seeds", "0", "--results", str(results)]
    command += ["--work", str(world / "work")]
    CliRunner().invoke(distribution.app, command, catch_exceptions=False)
    again = [*command, "--experiments", "sets"]  # replaces its rows
    assert CliRunner().invoke(distribution.app, again, catch_exceptions=False).exit_code == 0
    rows = distribution.read(results)
    assert {row["experiment"] for row in rows} == set(distribution.EXPERIMENTS)
    keys = ("experiment", "set", "seed", "metric", "method", "against")
    assert len({tuple(row[key] for key in keys) for row in rows}) == len(rows)
    assert all(np.isfinite(float(row["value"])) for row in rows)
    assert all(row["n_images"] == "30" for row in rows)
    wrong = {f"grades, {share:.0%} wrong" for share in neighbours.SHARES}
    assert {row["set"] for row in rows} == {"grades", "marks", "marks, twins", *wrong}
    value = {(r["method"], r["against"]): float(r["value"]) for r in rows if r["set"] == "marks"}
    ahead = value["diffusion", "prior"]
    assert ahead == pytest.approx(value["prior", ""] - value["diffusion", ""], abs=2e-5)
    told = CliRunner().invoke(distribution.app, ["table", "--results", str(results)]).output
    assert f"| diffusion | prior | {ahead:+.3f} | {ahead:+.3f} ± " in told


@pytest.mark.slow
def test_a_label_is_predicted_from_those_before_it_alone(world):
    of = DATA_SETS["marks"]
    job = Job("marks", of, 0, load(of, 0, world / "data"), world / "work", 0)
    network, order = trained_diffusion(job, OURS), torch.tensor([1, 0, 2])
    usual = network.process.sampler
    before = findings.chained(job, network, order)
    targets = job.parts.val.targets.clone()
    targets[:, 0] = 1 - targets[:, 0]  # the second in the order
    parts = replace(job.parts, val=replace(job.parts.val, targets=targets))
    after = findings.chained(replace(job, parts=parts), network, order)
    for readout in ("mean", "last"):
        assert torch.equal(before[readout][:, :2], after[readout][:, :2])
        assert not torch.equal(before[readout][:, 2], after[readout][:, 2])
    assert network.process.sampler is usual


def test_an_unknown_experiment_is_refused(tmp_path):
    command = ["run", "--data", str(tmp_path), "--experiments", "miracles"]
    assert CliRunner().invoke(distribution.app, command).exit_code == 2


def test_the_kept_results_can_be_read():
    rows = distribution.read(distribution.RESULTS)
    assert tuple(rows[0]) == distribution.COLUMNS
    assert {row["experiment"] for row in rows} <= set(distribution.EXPERIMENTS)
    told = CliRunner().invoke(distribution.app, ["table"]).output
    for row in rows:
        assert f"| {row['method']} | {row['against']}" in told
