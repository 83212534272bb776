"""What ``diffmic predict`` can be asked for: class shares, no decision, sets of classes."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes
from typer.testing import CliRunner

from diffmic import DiffMICClassifier, InputError
from diffmic.cli import app
from diffmic.cli.predicting import shares_in

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.fixture(scope="module")
def fitted():
    X, y = stripes(90)
    clf = DiffMICClassifier(**small(class_names=["across", "along", "plain"]))
    return clf.fit(X, y)


@pytest.fixture(scope="module")
def several():
    X, y = stripes(90)
    return DiffMICClassifier(**small(class_names=["a", "b", "c"])).fit(X, np.eye(3, dtype=int)[y])


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Run the command on some images; give rows, or the error."""
    files = []
    for number, image in enumerate(stripes(12, seed=5)[0]):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image).save(files[-1])

    def run(clf, *options):
        monkeypatch.setattr("diffmic.cli.predicting.load", lambda *_: clf)
        done = CliRunner().invoke(app, ["predict", "model", *files, *options])
        if done.exit_code:
            return done.exit_code, done.stderr
        return files, list(csv.DictReader(io.StringIO(done.stdout)))

    return run


def test_prevalence_changes_probabilities_and_decisions_as_in_python(fitted, predict):
    shares = {"across": 0.05, "along": 0.05, "plain": 0.9}
    for text in ("across=0.05,along=0.05,plain=0.9", "0.05,0.05,0.9", "[0.05, 0.05, 0.9]"):
        files, rows = predict(fitted, "--prevalence", text)
        found = [[float(row[f"p_{name}"]) for name in shares] for row in rows]
        expected = fitted.predict_proba(files, prevalence=shares)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        decided = fitted.predict(files, prevalence=shares)
        assert [row["predicted"] for row in rows] == [list(shares)[c] for c in decided]


def test_without_a_decision_the_cell_is_empty(fitted, several, predict):
    files, rows = predict(fitted, "--abstain", "0.5")
    decided = fitted.predict(files, abstain=0.5)
    names = ["across", "along", "plain"]
    assert [row["predicted"] for row in rows] == ["" if c is None else names[c] for c in decided]
    assert {None} < set(decided)
    files, rows = predict(several, "--abstain", "0.5")
    matrix = several.predict(files, abstain=0.5)
    assert np.isnan(matrix).any()
    for row, decision in zip(rows, matrix, strict=True):
        for label, value in zip("abc", decision, strict=True):
            assert (label in row["predicted"].split(";")) == (value == 1)
            assert (label in row["undecided"].split(";")) == np.isnan(value)


def test_sets_are_those_of_python(fitted, predict):
    pytest.importorskip("mapie")
    before = predict(fitted, "--sets", "0.9")
    assert before[0] == 1
    assert "conformalize" in before[1]
    clf = fitted.__copy__().conformalize(*stripes(60, seed=7))
    files, rows = predict(clf, "--sets", "0.9")
    sets = [[clf.class_names_[c] for c in one] for one in clf.predict_set(files, 0.9)]
    assert [row["set"].split(";") if row["set"] else [] for row in rows] == sets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prevalence", "0.5,0.5"], "2 shares"),
        (["--prevalence", "across=0.5,across=0.5"], "--prevalence is"),
        (["--prevalence", "across=0.5,0.5"], "--prevalence is"),
        (["--prevalence", "much"], "--prevalence is"),
        (["--prevalence", "up=1"], "no class"),
        (["--abstain", "1"], "abstain is 1"),
        (["--sets", "0"], "coverage is 0"),
        (["--sets", "0.9", "--prevalence", "0.2,0.2,0.6"], "omit --prevalence"),
    ],
)
def test_what_cannot_be_done_is_told_once_before_images_are_read(fitted, predict, options, message):
    code, told = predict(fitted, *options)
    assert code == 1
    assert message in told
    assert len(told.splitlines()) == 1


def test_a_file_that_was_written_is_told_with_the_number_of_images(fitted, monkeypatch, tmp_path):
    monkeypatch.setattr("diffmic.cli.predicting.load", lambda *_: fitted)
    file, out = tmp_path / "a.png", tmp_path / "made.csv"
    Image.fromarray(stripes(1)[0][0]).save(file)
    words = ["predict", "model", str(file), str(file)]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.stderr == f"diffmic: 2 predictions were made, and written to {out}.\n"
    done = CliRunner().invoke(app, [*words, "nowhere.png", "--out", str(out)])
    assert done.exit_code == 3
    told = f"1 of 3 could not be read; 2 predictions were made, and written to {out}."
    assert done.stderr.splitlines()[-1] == f"diffmic: {told}"
    assert CliRunner().invoke(app, words).stderr == ""


def test_shares_are_read():
    assert shares_in("a=b=0.5, c=0.5") == {"a=b": 0.5, "c": 0.5}
    assert shares_in('{"a,b": 1}') == {"a,b": 1}
    with pytest.raises(InputError, match="in JSON"):
        shares_in("{")
