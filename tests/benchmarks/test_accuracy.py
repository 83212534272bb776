"""The accuracy benchmark: what it adds up from runs is right."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import f1_score, log_loss
from tiny import stripes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import accuracy  # noqa: E402
from accuracy_bench import encoders, stage_one, steps  # noqa: E402
from accuracy_bench.beyond import abstaining, label_sets, risk_coverage_area  # noqa: E402
from accuracy_bench.methods import METHODS  # noqa: E402
from accuracy_bench.results import (  # noqa: E402
    COLUMNS,
    N_RESAMPLES,
    Answers,
    Results,
    differences,
    macro_f1,
    paired_differences,
    summary,
)
from accuracy_bench.stage_one import CHANGES  # noqa: E402
from accuracy_bench.steps import RUNS  # noqa: E402
from accuracy_bench.tables import changes_table  # noqa: E402
from accuracy_bench.tasks import DATA_SETS, DataSet, load, near_duplicates  # noqa: E402

pytestmark = pytest.mark.benchmarks


def answers(sharpness, *, seed=0, n=200, multilabel=False):
    """Probabilities that know the truth the better, the sharper they are."""
    rng = np.random.RandomState(seed)
    targets = np.eye(3, dtype=int)[rng.randint(3, size=n)]
    if multilabel:
        targets = (rng.rand(n, 3) < 0.3).astype(int)
    logits = sharpness * (targets - 0.5) + rng.normal(size=(n, 3))
    proba = 1 / (1 + np.exp(-logits))
    if multilabel:
        return Answers(targets, proba, np.full(3, 0.5), np.arange(n))
    proba = proba / proba.sum(axis=1, keepdims=True)
    return Answers(targets, proba, np.empty(0), np.arange(n))


@pytest.mark.parametrize("multilabel", [False, True])
def test_f1_and_losses_are_scikit_learns(multilabel):
    of = answers(2.0, multilabel=multilabel)
    expected = f1_score(of.targets, of.predicted, average="macro")
    assert macro_f1(of, np.ones((1, 200)))[0] == pytest.approx(expected)
    if multilabel:
        columns = [log_loss(of.targets[:, c], of.proba[:, c]) for c in range(3)]
        assert of.losses().mean() == pytest.approx(np.mean(columns))
    else:
        assert of.losses().mean() == pytest.approx(log_loss(of.targets, of.proba))


def test_a_resample_counts_an_image_as_often_as_it_is_drawn():
    of, rng = answers(1.0), np.random.RandomState(1)
    index = rng.randint(200, size=200)
    counts = np.bincount(index, minlength=200)[None]
    drawn = Answers(of.targets[index], of.proba[index], of.thresholds, of.groups[index])
    assert macro_f1(of, counts)[0] == pytest.approx(macro_f1(drawn, np.ones((1, 200)))[0])


def test_the_better_method_has_differences_above_zero():
    better, worse = [answers(3.0)], [answers(1.0)]
    found = paired_differences(better, worse, np.random.default_rng(0))
    for values in (found.macro_f1, found.nll):
        assert values.shape == (1 + N_RESAMPLES,)
        assert np.percentile(values, 2.5) > 0
    assert (found.runs_ahead, found.n_runs) == ((1, 1), 1)
    back = paired_differences(worse, better, np.random.default_rng(0))
    np.testing.assert_allclose(back.nll, -found.nll)
    assert back.runs_ahead == (0, 0)


def test_a_method_does_not_differ_from_itself():
    runs = [answers(1.0, seed=seed) for seed in range(3)]
    found = paired_differences(runs, runs, np.random.default_rng(0))
    assert not found.macro_f1.any()
    assert not found.nll.any()


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 100 pairs of methods that are equally good, about 5 intervals leave 0 out."""
    outside = 0
    for seed in range(100):
        a, b = answers(1.0, seed=seed, n=80), answers(1.0, seed=seed, n=80)
        noise = np.random.RandomState(seed + 1000).normal(size=(2, 80, 3))
        a, b = (
            replace(x, proba=np.exp(e) / np.exp(e).sum(axis=1, keepdims=True))
            for x, e in zip((a, b), noise, strict=True)
        )
        values = paired_differences([a], [b], np.random.default_rng(seed)).nll
        low, high = np.percentile(values[1:], [2.5, 97.5])
        outside += not low <= 0 <= high
    assert 1 <= outside <= 13


def test_intervals_hold_for_networks_that_were_not_trained():
    """Of 60 comparisons whose runs scatter about no difference, few intervals leave 0 out."""
    outside = 0
    for seed in range(60):
        sharpness = 2 + np.random.RandomState(seed).normal(scale=0.5, size=(8, 2))
        pairs = [
            [answers(of, seed=10 * seed + run, n=80) for of in both]
            for run, both in enumerate(sharpness)
        ]
        ours, theirs = (list(side) for side in zip(*pairs, strict=True))
        values = paired_differences(ours, theirs, np.random.default_rng(seed)).nll
        low, high = np.percentile(values[1:], [2.5, 97.5])
        outside += not low <= 0 <= high
    assert outside <= 9


def test_images_that_belong_together_are_drawn_together():
    """Twice the same images are no more evidence than once, in one split or in two."""
    a, b = answers(3.0, n=80), answers(1.0, n=80)
    once = paired_differences([a], [b], np.random.default_rng(0))
    twice = (
        replace(x, **{k: np.concatenate([v, v]) for k, v in vars(x).items() if len(v)})
        for x in (a, b)
    )
    in_one = paired_differences(*([x] for x in twice), np.random.default_rng(0))
    in_two = paired_differences([a, a], [b, b], np.random.default_rng(0))
    for found in (in_one, in_two):
        np.testing.assert_allclose(found.nll, once.nll)
        np.testing.assert_allclose(found.macro_f1, once.macro_f1)


def test_the_area_under_the_risk_coverage_curve():
    correct = np.array([True, True, False, False])
    best, worst = np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4])
    assert risk_coverage_area(correct, best) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert risk_coverage_area(correct, worst) == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert risk_coverage_area(correct, np.ones(4)) == pytest.approx(0.5)  # in no order


def test_draws_that_disagree_tell_when_to_abstain():
    targets = np.eye(2)[[0, 0, 1]]
    of_draws = np.array([[0.9, 0.9], [0.8, 0.8], [0.9, 0.7]])[..., None] * [1, -1] + [0, 1]
    found = abstaining(targets, of_draws.mean(axis=1), of_draws)
    assert found["aurc_spread"] == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert found["aurc"] == pytest.approx((0 + 1 / 4 + 1 / 3) / 3)


def test_labels_that_come_together_are_likelier_under_draws_that_say_so():
    targets = np.array([[1.0, 1], [0, 0]])
    of_draws = np.array([[[0.9, 0.9], [0.1, 0.1]]] * 2)  # both or none
    found = label_sets(targets, of_draws.mean(axis=1), of_draws)
    assert found["set_nll"] == pytest.approx(2 * np.log(2))
    assert found["set_nll_draws"] == pytest.approx(-np.log(0.5 * 0.81 + 0.5 * 0.01))


def test_a_share_of_the_training_labels_is_made_wrong(data):
    parts = load(DATA_SETS["stripes"], 0, data)
    wrong = parts.with_wrong_labels(0.5, 0)
    changed = (wrong.train.targets != parts.train.targets).any(dim=1)
    assert 0.3 < changed.float().mean() < 0.7
    assert (wrong.train.targets.sum(dim=1) == 1).all()
    assert wrong.val is parts.val
    assert parts.with_wrong_labels(0.0, 0) is parts


def test_results_come_back_from_disk(tmp_path):
    results, of = Results(tmp_path / "deep" / "runs.csv"), answers(1.0)
    assert results.rows() == []
    for seed, f1 in ((0, 0.5), (1, 0.7)):
        row = {"set": "a", "seed": seed, "method": "prior", "part": "val", "macro_f1": f1}
        results.add(row)
    assert results.has("a", 1, "prior", "val")
    assert not results.has("a", 1, "prior", "test")
    [(name, method, n_runs, metrics)] = summary(results.rows(), "val")
    assert (name, method, n_runs) == ("a", "prior", 2)
    assert metrics == {"macro_f1": pytest.approx((0.6, 0.02**0.5))}
    results.keep("a", 0, "prior", of)
    kept = results.answers("a", 0, "prior")
    np.testing.assert_array_equal(kept.targets, of.targets)
    np.testing.assert_allclose(kept.proba, of.proba, atol=1e-3)
    assert results.answers("a", 1, "prior") is None
    older = tmp_path / "older.csv"
    older.write_text("set,seed\na,0\n")
    with pytest.raises(ValueError, match="other columns"):
        Results(older).add({"set": "a"})


def test_earlier_files_are_read_but_not_written(tmp_path):
    """Once the accuracy of multi-label sets was that of single labels."""
    columns = [name for name in COLUMNS if name != "label_accuracy"]
    file = tmp_path / "earlier.csv"
    multilabel = {"set": "xray", "accuracy": "0.9", "set_nll": "2.5"}
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows([{"set": "skin", "accuracy": "0.8"}, multilabel])
    rows = {row["set"]: row for row in Results(file).rows()}
    assert (rows["skin"]["accuracy"], rows["skin"]["label_accuracy"]) == ("0.8", "")
    assert (rows["xray"]["accuracy"], rows["xray"]["label_accuracy"]) == ("", "0.9")
    with pytest.raises(ValueError, match="other columns"):
        Results(file).check_columns()


def test_the_kept_results_can_be_read():
    rows = Results(accuracy.RESULTS).rows()
    assert {method for _, method, _, _ in summary(rows, "test")} == set(METHODS)
    labels = {name for name, _, _, metrics in summary(rows, "test") if "label_accuracy" in metrics}
    assert labels == {"chestxray14"}


def test_sets_count_the_same_when_they_are_pooled(tmp_path):
    results = Results(tmp_path / "runs.csv")
    for name, n in (("small", 50), ("large", 400)):
        for method, sharpness in (("diffusion", 3.0), ("prior", 1.0)):
            results.add({"set": name, "seed": 0, "method": method, "part": "test"})
            results.keep(name, 0, method, answers(sharpness, n=n))
    found = differences(results, "diffusion", ["prior", "plain"])
    assert set(found) == {("prior", "small"), ("prior", "large"), ("prior", "pooled")}
    for metric in ("macro_f1", "nll"):
        of_sets = [getattr(found["prior", name], metric) for name in ("small", "large")]
        pooled = getattr(found["prior", "pooled"], metric)
        np.testing.assert_allclose(pooled, np.mean(of_sets, axis=0))


def test_pictures_of_differences_and_ablations(tmp_path):
    results, ablations = Results(tmp_path / "runs.csv"), Results(tmp_path / "ablations.csv")
    for method, sharpness in (("diffusion", 3.0), ("prior", 1.0)):
        results.add({"set": "a", "seed": 0, "method": method, "part": "test"})
        results.keep("a", 0, method, answers(sharpness))
    named = {method for values in accuracy.FACTORS.values() for method in values.values()}
    for method in sorted(named | {"prior"}):
        row = {"set": "a", "seed": 0, "method": method, "part": "val", "macro_f1": 0.5, "nll": 1}
        ablations.add(row)
    accuracy.plot(results.file, results.file, ablations.file, tmp_path)
    for name in ("accuracy.png", "accuracy_figures.png", "ablations.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with a small data set, for which the default network is a small one."""
    X, y = stripes(60)
    folder = tmp_path / "data" / "stripes"
    (folder / "images").mkdir(parents=True)
    lines = ["file,label,split,patient"]
    for number, (image, label) in enumerate(zip(X, y, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        split = "train" if number < 40 else "val" if number < 50 else "test"
        lines.append(f"images/{number}.png,{label},{split},{number // 2}")
    (folder / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setitem(DATA_SETS, "stripes", DataSet("stripes", 64, 1))
    small = {"backbone": "test_resnet", "pretrained": False, "num_steps": 2, "n_draws": 2}
    for name, value in small.items():
        monkeypatch.setitem(encoders.DEFAULTS, name, value)
    return tmp_path / "data"


def test_a_run_measures_every_method_and_goes_on_where_it_was(data, tmp_path, monkeypatch, capsys):
    places = {"results": tmp_path / "runs.csv", "work": tmp_path / "work"}
    options = {"sets": ["stripes"], "seeds": [0], "verbose": 0, **places}
    accuracy.run(data, methods=["prior", "plain"], **options)
    rows = Results(places["results"]).rows()
    assert [(row["method"], row["part"]) for row in rows] == [("prior", "val"), ("plain", "val")]

    for stage in ("train_prior", "train_on_images"):  # both are on disk
        monkeypatch.setattr(encoders, stage, lambda *_, **__: pytest.fail("trained anew"))
    accuracy.run(data, methods=list(METHODS), final=True, **options)
    accuracy.run(data, methods=list(METHODS), final=True, **options)
    rows = Results(places["results"]).rows()
    tested = [row for row in rows if row["part"] == "test"]
    assert sorted(row["method"] for row in tested) == sorted(METHODS)
    assert all(np.isfinite(float(row["nll"])) and row["n_images"] == "10" for row in tested)

    assert len(rows) == 2 * len(METHODS)  # no row twice

    accuracy.table(places["results"])
    printed = capsys.readouterr().out
    plain = next(row for row in tested if row["method"] == "plain")
    of = Results(places["results"]).answers("stripes", 0, "plain")
    right = of.proba.argmax(axis=1) == of.targets.argmax(axis=1)
    assert float(plain["accuracy"]) == pytest.approx(right.mean(), abs=1e-5)
    first = f"| {float(plain['macro_f1']):.3f} / {float(plain['nll']):.3f} |"
    assert printed.startswith("| set | plain | plain_tta | prior |")
    assert f"| stripes {first}" in printed
    assert "| stripes | diffusion | 1 |" in printed
    assert "| **prior** | **pooled over 1** |" in printed


@pytest.mark.parametrize("kind", ["file", "folder per class"])
def test_own_images_are_compared_like_the_data_sets(data, tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    X, y = stripes(60)
    place = data / "stripes" / "labels.csv"
    if kind != "file":
        place = tmp_path / "mine"
        for number, (image, label) in enumerate(zip(X, y, strict=True)):
            (place / f"class {label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"class {label}" / f"{number}.png")
    accuracy.own(
        place,
        image_size=64,
        max_epochs=1,
        methods=["plain", "prior", "diffusion"],
        seeds=[0],
        final=True,
        results=tmp_path / "own.csv",
        work=tmp_path / "own-networks",
        verbose=0,
    )
    rows = Results(tmp_path / "own.csv").rows()
    assert {row["set"] for row in rows} == {place.stem}
    assert sum(row["part"] == "test" for row in rows) == 3
    assert "| plain | " + place.stem in capsys.readouterr().out  # the paired differences


def test_own_networks_are_not_taken_for_other_images_or_settings(data, tmp_path):
    place = data / "stripes" / "labels.csv"
    places = {"results": tmp_path / "own.csv", "work": tmp_path / "networks"}
    options = {"max_epochs": 1, "methods": ["prior"], "seeds": [0], "verbose": 0}
    accuracy.own(place, image_size=64, **options, **places)
    first = Results(places["results"]).rows()
    for changed in ({"image_size": 96}, {"image_size": 64, "augment": "rotations"}):
        with pytest.raises(typer.BadParameter, match=r"another (image_size|augment): pass other"):
            accuracy.own(place, **options, **places, **changed)
    with pytest.raises(typer.BadParameter, match="results of other networks"):
        accuracy.own(place, image_size=64, **options, **places | {"work": tmp_path / "others"})
    place.write_text("\n".join(place.read_text().splitlines()[:-1]))  # an image less
    with pytest.raises(typer.BadParameter, match="another images"):
        accuracy.own(place, image_size=64, **options, **places)
    assert Results(places["results"]).rows() == first


def test_own_images_need_all_three_splits_or_none(data, tmp_path):
    table = data / "stripes" / "labels.csv"
    table.write_text(table.read_text().replace(",val,", ",train,"))
    with pytest.raises(typer.BadParameter, match=r"\['test', 'train'\]"):
        accuracy.own(table, results=tmp_path / "own.csv", work=tmp_path)


def test_both_versions_are_measured_by_steps_and_go_on_where_they_were(data, tmp_path, monkeypatch):
    places = {"results": tmp_path / "steps.csv", "work": tmp_path / "work"}
    accuracy.steps(data, ["stripes"], [0], **places)
    rows = Results(places["results"]).rows()
    assert [row["method"] for row in rows] == ["prior", *RUNS["short"]]
    assert all(np.isfinite(float(row["nll"])) for row in rows)
    by_steps = {row["method"]: row["nll"] for row in rows}
    assert by_steps["diffmic-v1"] == by_steps["diffmic-v1 1000 steps"]
    monkeypatch.setattr(steps, "train_jointly", lambda *_, **__: pytest.fail("trained anew"))
    steps.trained_v1.cache_clear()
    lines = places["results"].read_text().splitlines()
    places["results"].write_text("\n".join(lines[:4]) + "\n")  # interrupted
    accuracy.steps(data, ["stripes"], [0], final=True, **places)
    again = Results(places["results"]).rows()
    assert len(again) == 2 * len(rows)
    assert {row["method"]: row["nll"] for row in again if row["part"] == "val"} == by_steps


def test_long_runs_have_the_papers_epochs_and_decay():
    short, long = RUNS["short"]["diffmic-v1"], RUNS["hours"]["diffmic-v1, 1000 epochs"]
    assert (long.recipe.denoiser_epochs, long.recipe.ema_decay) == (1000, 0.9999)
    assert (short.recipe.denoiser_epochs, short.recipe.ema_decay) == (None, None)
    for method in RUNS["long"].values():  # none of which is stopped early
        assert method.recipe.denoiser_epochs == 1000
        assert method.recipe.patience in (None, 1000)
    assert long.recipe.joint
    assert not any(method.recipe.joint for method in RUNS["long"].values())
    train = SimpleNamespace(parts=SimpleNamespace(train=range(544)))
    for method in RUNS["long"].values():
        recipe = method.on(method.recipe, train)
        assert (recipe.batch_size, recipe.steps_per_epoch) == (32, 17)  # one pass
    assert len(steps.STEPPED) == sum(map(len, RUNS.values()))
    assert not steps.STEPPED.keys() & METHODS.keys()


def test_runs_of_another_size_are_kept_apart(data, tmp_path):
    places = {"results": tmp_path / "runs.csv", "work": tmp_path / "work"}
    options = {"sets": ["stripes"], "seeds": [0], "methods": ["plain"], "verbose": 0, **places}
    accuracy.run(data, **options)
    for _ in range(2):
        accuracy.run(data, image_size=96, max_epochs=2, **options)
    rows = Results(places["results"]).rows()
    assert [(row["image_size"], row["max_epochs"]) for row in rows] == [("64", "1"), ("96", "2")]
    with pytest.raises(ValueError, match="64 pixels, 1 epochs; 96 pixels, 2 epochs"):
        accuracy.table(places["results"], "val")  # a mean of both would be of neither
    accuracy.run(data, final=True, **options)
    with pytest.raises(typer.BadParameter, match="another size: --results"):
        accuracy.run(data, final=True, image_size=96, max_epochs=2, **options)
    assert rows[0]["nll"] != rows[1]["nll"]
    with pytest.raises(typer.BadParameter, match="--results"):
        accuracy.run(data, **options | {"results": accuracy.RESULTS, "image_size": 96})


def test_each_backbone_has_a_file_and_a_line_in_the_table(data, tmp_path, capsys):
    places = {"work": tmp_path / "work", "verbose": 0}
    files = [tmp_path / "one.csv", tmp_path / "other.csv"]
    methods = ["plain", "prior", "diffusion"]
    for file, backbone in zip(files, (None, "test_efficientnet"), strict=True):
        accuracy.run(
            data, ["stripes"], methods, [0], final=True, backbone=backbone, results=file, **places
        )
    with pytest.raises(typer.BadParameter, match="has runs of test_resnet: --results"):
        accuracy.run(data, ["stripes"], ["plain"], [1], backbone="x", results=files[0], **places)
    accuracy.backbones(files)
    told = capsys.readouterr().out
    accuracy.run(data, ["stripes"], methods, [1], final=True, results=files[0], **places)
    capsys.readouterr()
    accuracy.backbones(files)
    assert capsys.readouterr().out == told  # means and differences are of what both have
    with pytest.raises(typer.BadParameter, match="No run of these methods is in all of"):
        accuracy.backbones([*files, tmp_path / "none.csv"])
    first, second, *_, change = told.rstrip().splitlines()[2:]
    assert first.startswith("| test_resnet | 1 | ")
    assert second.startswith("| test_efficientnet | 1 | ")
    assert change.startswith("| test_efficientnet − test_resnet | ")
    rows = [row for file in files for row in Results(file).rows() if row["seed"] == "0"]
    one, other = (
        float(row["macro_f1"]) for row in rows if (row["method"], row["part"]) == ("plain", "test")
    )
    assert float(change.split("|")[2].split()[0]) == pytest.approx(other - one, abs=0.0011)
    accuracy.table(files[1], against=files[0])
    (against,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| plain | stripes | ") and " of 1 |" in line
    )
    rows = [row for row in rows if row["part"] == "test" and row["backbone"] == "test_efficientnet"]
    ours = next(float(row["macro_f1"]) for row in rows if row["method"] == "diffusion")
    assert float(against.split("|")[3].split()[0]) == pytest.approx(ours - one, abs=0.0011)
    row = {r["method"]: r for r in Results(files[1]).rows() if r["part"] == "test"}["plain"]
    plain = f" {float(row['macro_f1']):.3f} / {float(row['nll']):.3f} "
    assert plain in second
    assert plain not in first


def test_files_of_other_images_or_sizes_are_not_compared(data, tmp_path):
    options = {"sets": ["stripes"], "seeds": [0], "methods": ["diffusion"], "final": True}
    options |= {"work": tmp_path / "work", "verbose": 0}
    file, larger = tmp_path / "one.csv", tmp_path / "larger.csv"
    accuracy.run(data, **options, results=file)
    accuracy.run(data, **options, image_size=96, results=larger)
    with pytest.raises(typer.BadParameter, match=r"than the backbone, on stripes: 64 pix.*96"):
        accuracy.backbones([file, larger])
    accuracy.table(larger, against=file)  # sizes may differ here
    with pytest.raises(typer.BadParameter, match=r"No run of .* has probabilities"):
        accuracy.table(larger, against=file, method="prior")  # which has not run
    with pytest.raises(typer.BadParameter, match="which are of test parts"):
        accuracy.table(larger, "val", against=file)
    kept = Results(file).answers("stripes", 0, "diffusion")
    Results(file).keep("stripes", 0, "diffusion", replace(kept, targets=kept.targets[::-1]))
    with pytest.raises(ValueError, match="have other images of stripes"):
        accuracy.table(larger, against=file)
    for each in Results(file).folder.iterdir():
        each.unlink()
    with pytest.raises(typer.BadParameter, match=r"No run of .* has probabilities"):
        accuracy.table(larger, against=file)


def test_small_sets_are_kept_apart(data, tmp_path, monkeypatch):
    monkeypatch.setattr(DataSet, "small", lambda self: replace(self, max_epochs=2, n_training=20))
    places = {"results": tmp_path / "runs.csv", "work": tmp_path / "work"}
    options = {"sets": ["stripes"], "seeds": [0], "methods": ["plain"], "verbose": 0, **places}
    for small in (False, True, True):
        accuracy.run(data, small=small, **options)
    rows = Results(places["results"]).rows()
    assert [json.loads(row["settings"])["n_training"] for row in rows] == [40, 20]
    assert rows[0]["nll"] != rows[1]["nll"]
    with pytest.raises(typer.BadParameter, match="--results"):
        accuracy.run(data, small=True, **options | {"results": accuracy.RESULTS})


def test_runs_of_one_kind_of_processor_can_be_looked_at_alone(tmp_path):
    file = tmp_path / "runs.csv"
    for seed, processor in enumerate(["x86_64", "NVIDIA H200"]):
        Results(file).add({"set": "stripes", "seed": seed, "processor": processor})
    assert [row["seed"] for row in Results(file, "H200").rows()] == ["1"]
    assert len(Results(file).rows()) == 2


def test_balanced_accuracy_of_the_likeliest_for_its_share(data, tmp_path, capsys):
    kept = Results(tmp_path / "runs.csv")
    lines = (data / "stripes" / "labels.csv").read_text().splitlines()[1:41]
    shares = np.bincount([int(line.split(",")[1]) for line in lines]) / 40
    targets = np.eye(3, dtype=int)
    proba = (0.34 * targets + 0.22) * shares  # right once it is divided by the shares
    proba /= proba.sum(axis=1, keepdims=True)
    kept.keep("stripes", 0, "plain", Answers(targets, proba, np.empty(0), np.arange(3)))
    kept.add({"set": "stripes", "seed": 0, "method": "plain", "part": "test"})
    accuracy.balanced(data, "stripes", tmp_path / "runs.csv")
    found = np.mean(proba.argmax(axis=1) == [0, 1, 2])
    assert f"| plain | {found:.3f}, {found:.3f} | 1.000, 1.000 |" in capsys.readouterr().out


def test_parts_of_the_recipe_are_ablated_on_validation_alone(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATA_SETS, "stripes", DataSet("stripes", 64, 4))
    places = {"results": tmp_path / "ablations.csv", "work": tmp_path / "work"}
    methods = ["diffusion", "width 64", "denoiser of 2 regions", "1 steps", "noise"]
    methods.append("drawing not undone")
    accuracy.ablate(data, sets=["stripes"], methods=methods, **places)
    rows = Results(places["results"]).rows()
    assert [(row["method"], row["part"]) for row in rows] == [(name, "val") for name in methods]
    assert len({row["nll"] for row in rows}) == len(methods)

    accuracy.ablations(places["results"])
    f1, nll = ({row["method"]: float(row[name]) for row in rows} for name in ("macro_f1", "nll"))
    change = f"{f1['noise'] - f1['diffusion']:+.3f} / {nll['noise'] - nll['diffusion']:+.3f}"
    printed = capsys.readouterr().out
    assert f"| noise | {f1['noise']:.3f} / {nll['noise']:.3f} | {change} |" in printed
    assert printed.startswith("| change | stripes |")


def test_stage_one_is_changed_in_one_way_at_a_time(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATA_SETS, "stripes", DataSet("stripes", 96, 2))
    monkeypatch.setattr(stage_one, "HORIZON", 1.0)  # else a run of four steps has no average
    places = {"results": tmp_path / "stage_one.csv", "work": tmp_path / "work"}
    changes = [what for what in CHANGES if "twice" not in what]
    accuracy.stage_one(data, ["stripes"], changes, seeds=[0], **places)
    rows = Results(places["results"]).rows()
    named = {row["method"]: row for row in rows}
    assert list(named) == [
        f"{what}{suffix}: {learner}"
        for what in changes
        for learner in ("prior", "plain")
        for suffix in ("", ", averaged")
    ]
    assert {row["part"] for row in rows} == {"val"}
    assert named["larger by a third: plain"]["image_size"] == "128"
    for learner in ("prior", "plain"):  # each change changes what is learnt
        means = [
            float(load_file(file)["backbone.net.model.conv1.0.weight"].double().mean())
            for file in places["work"].glob(f"*/stripes-0-{learner}*.safetensors")
        ]
        assert len(set(means)) == len(means) == 2 * len(changes)

    apart = {"results": tmp_path / "runs.csv", "work": tmp_path / "other"}
    accuracy.run(data, ["stripes"], ["prior"], [0], verbose=0, **apart)
    (fit,) = Results(tmp_path / "runs.csv").rows()
    assert fit["nll"] == named["today: prior"]["nll"]  # today's is that of the library

    accuracy.ablations(places["results"], base="today: prior", ending="prior")
    printed = capsys.readouterr().out
    assert f"| mixup: prior | {float(named['mixup: prior']['macro_f1']):.3f}" in printed
    assert "plain" not in printed


def test_a_changed_plain_recipe_is_compared_with_the_methods(data, tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "stripes", DataSet("stripes", 96, 2))
    places = {"results": tmp_path / "runs.csv", "work": tmp_path / "work"}
    accuracy.run(data, ["stripes"], ["prior"], [0], final=True, verbose=0, **places)
    change, learner = accuracy.BEST_PLAIN.split(": ")
    accuracy.stage_one(data, ["stripes"], [change], [learner], [0], final=True, **places)
    rows = Results(places["results"]).rows()
    tested = {row["method"]: row for row in rows if row["part"] == "test"}
    assert tested[accuracy.BEST_PLAIN]["image_size"] == "128"
    found = differences(Results(places["results"]), "prior", accuracy.COMPARED)
    ahead = float(tested[accuracy.BEST_PLAIN]["nll"]) - float(tested["prior"]["nll"])
    assert found[accuracy.BEST_PLAIN, "stripes"].nll[0] == pytest.approx(ahead, abs=2e-3)
    names = [file.name for file in (tmp_path / "runs").iterdir()]
    assert names
    assert not any(":" in name for name in names)  # they are files on Windows, too

    lines = places["results"].read_text().splitlines()
    places["results"].write_text("\n".join(lines[:-1]) + "\n")  # interrupted
    for _ in range(2):
        accuracy.stage_one(data, ["stripes"], [change], [learner], [0], final=True, **places)
        again = Results(places["results"]).rows()
        assert [row | {"seconds": ""} for row in again] == [row | {"seconds": ""} for row in rows]


def test_changes_are_paired_by_split_and_sets_count_the_same():
    def row(name, seed, method, f1, nll):
        of = {"set": name, "seed": str(seed), "method": method, "part": "val"}
        return of | {"macro_f1": str(f1), "nll": str(nll)}

    rows = [
        *(row("a", seed, "diffusion", 0.5 + seed / 10, 0.6) for seed in range(2)),
        *(row("a", seed, "v", 0.6 + seed / 5, 0.5) for seed in range(2)),  # +0.1, +0.2
        *(row("b", seed, "diffusion", 0.5, 0.6) for seed in range(3)),
        *(row("b", seed, "v", 0.5, 0.6 + seed / 10) for seed in range(3)),  # 0, 0.1, 0.2
        row("b", 3, "v", 0.0, 9.0),  # without its opponent
    ]
    line = changes_table(rows, "val", "diffusion").splitlines()[3]
    change = "+0.075 ± 0.025 / +0.000 ± 0.029"
    assert line == f"| v | 0.700 / 0.500 | 0.500 / 0.700 | {change} | 2 of 5 | 2 of 5 |"


def test_small_sets_are_drawn_by_class(data):
    data_set = replace(DataSet("stripes", 160, 20).small(), n_training=18)
    parts = load(data_set, 0, data)
    assert (data_set.image_size, data_set.max_epochs) == (96, 12)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [18, 10, 10]
    whole = load(replace(data_set, n_training=None), 0, data)
    shares = (p.train.targets.mean(dim=0).numpy() for p in (parts, whole))
    np.testing.assert_allclose(*shares, atol=0.05)
    assert not torch.equal(parts.train.targets, load(data_set, 1, data).train.targets)


def test_regions_are_compared_on_small_sets_of_validation(data, tmp_path, monkeypatch):
    monkeypatch.setattr(DataSet, "small", lambda self: replace(self, image_size=96, max_epochs=1))
    monkeypatch.setitem(DATA_SETS, "stripes", DataSet("stripes", 160, 2, zoom_size=128))
    results = tmp_path / "regions.csv"
    accuracy.regions(
        data, ["stripes"], seeds=[0], small=True, results=results, work=tmp_path / "work"
    )
    rows = Results(results).rows()
    assert [row["method"] for row in rows] == [
        f"{kind}: {what}"
        for kind in ("off", "paper", "fused", "contrast", "fine map", "zoom")
        for what in ("prior", "local", "diffusion")
    ]
    assert {(row["part"], row["image_size"], row["max_epochs"]) for row in rows} == {
        ("val", "96", "1")
    }


def test_splits_of_a_seed_keep_groups_together(data, monkeypatch):
    data_set = DataSet("stripes", 32, 1, group="patient", resplit=True)
    parts = load(data_set, 0, data)
    sizes = [len(parts[name]) for name in ("train", "val", "test")]
    assert sum(sizes) == 60
    assert sizes[0] > sizes[2] > sizes[1] > 0
    paths = sorted((data / "stripes" / "images").iterdir())
    patients = {np.asarray(Image.open(path)).tobytes(): int(path.stem) // 2 for path in paths}

    def patients_of(part):
        images = (part.images[index][0].numpy().tobytes() for index in range(len(part)))
        return {patients[image] for image in images}

    train, val, test = (patients_of(parts[name]) for name in ("train", "val", "test"))
    assert train | val | test == set(range(30))
    assert len(train) + len(val) + len(test) == 30
    assert patients_of(load(data_set, 1, data).test) != test


def test_near_duplicates_are_one_group(tmp_path):
    rng = np.random.RandomState(0)
    pictures = [rng.randint(0, 256, (32, 32), np.uint8) for _ in range(3)]
    pictures.append((pictures[1] // 2 * 2).astype(np.uint8))
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    groups = near_duplicates(paths)
    assert groups[1] == groups[3]
    assert len(set(groups.tolist())) == 3
