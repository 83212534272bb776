"""Predictions of many files by workers of Ray: every image once, as one process predicts it."""

import copy
import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mortal import Mortal
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.exceptions import NotFittedError
from tiny import stripes

from diffmic import InputError
from diffmic.storage import Folder, listed

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
pa = pytest.importorskip("pyarrow")
scale = pytest.importorskip("diffmic.scale")
pytest.importorskip("ray.data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty images, of which one is damaged."""
    made = tmp_path_factory.mktemp("scans")
    for number, image in enumerate(stripes(30, seed=1)[0]):
        Image.fromarray(image).save(made / f"{number:02}.png")
    (made / "07.png").write_bytes((made / "07.png").read_bytes()[:200])
    return made


def read(out):
    """Rows of all parquet files in a folder, by file."""
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(out).to_table().to_pylist()
    by_file = {row["file"]: row for row in rows}
    assert len(by_file) == len(rows)
    return by_file


def probabilities(rows):
    return [[v for k, v in row.items() if k.startswith("p_")] for row in rows]


class Died(BaseException):
    """The end of a worker's process."""


class InProcess:
    """What :mod:`diffmic.scale` needs of Ray, one worker after the other in this process."""

    def __init__(self):
        self.data = SimpleNamespace(from_arrow=self.from_arrow, ActorPoolStrategy=dict)
        self.events, self.n_workers = [], 0

    def is_initialized(self):
        return False

    def init(self):
        self.events.append(f"init, usage stats {os.environ['RAY_USAGE_STATS_ENABLED']}")

    def shutdown(self):
        self.events.append("shutdown")

    def cluster_resources(self):
        return {"CPU": 3.0}

    def put(self, value):
        return value

    get = put

    def from_arrow(self, tables):
        self.n_shares = len(tables)

        def map_batches(worker, *, fn_constructor_args, batch_size, compute, **options):
            assert batch_size is None
            self.concurrency, self.options = compute["size"], options

            def iter_rows():
                made = None
                for table in tables:
                    batch = {name: np.array(table[name].to_pylist()) for name in table.schema.names}
                    while True:  # as Ray, which repeats the share of a worker that died for ever
                        if made is None:
                            made, self.n_workers = worker(*fn_constructor_args), self.n_workers + 1
                        try:
                            row = {name: values[0] for name, values in made(batch).items()}
                            break
                        except Died:
                            made = None
                    yield row

            return SimpleNamespace(iter_rows=iter_rows)

        return SimpleNamespace(map_batches=map_batches)


@pytest.fixture
def in_process(monkeypatch):
    ray = InProcess()
    monkeypatch.setattr(scale, "_ray", lambda: ray)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    return ray


# --- The workers of a cluster --------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of the user's, with two CPUs."""
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    here = Path(__file__).parent  # workers import what the tests import
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_killed_worker_costs_no_image_and_no_damaged_file_is_lost(
    fitted, folder, cluster, tmp_path
):
    mortal = copy.copy(fitted)
    mortal.__class__, mortal.flag = Mortal, tmp_path / "killed"
    files = [*sorted(folder.iterdir()), "nowhere.png"]
    out = tmp_path / "out"
    done = scale.predict(files, mortal, out, batch_size=2, concurrency=2)
    assert mortal.flag.exists()
    assert (done.n_images, done.n_errors) == (31, 2)
    assert set(done.errors) == {str(folder / "07.png"), "nowhere.png"}
    rows = read(out)
    assert set(rows) == set(map(str, files))
    good = [str(file) for file in files if str(file) not in done.errors]
    assert_allclose(
        probabilities(rows[file] for file in good), fitted.predict_proba(good), atol=1e-5
    )
    assert cluster.is_initialized()  # it is the user's


# --- What a worker does --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_shares_hold_what_one_process_predicts(request, name, stage, folder, tmp_path, in_process):
    classifier = request.getfixturevalue(name)
    done = scale.predict(folder, classifier, tmp_path / "out", stage=stage, batch_size=2)
    assert in_process.n_shares > 2
    assert (done.n_images, done.n_errors, list(done.errors)) == (30, 1, [str(folder / "07.png")])
    rows = read(done.out)
    damaged = rows.pop(str(folder / "07.png"))
    assert "not an image that can be read" in damaged.pop("error")
    assert {damaged.pop("file"), *damaged.values()} == {str(folder / "07.png"), None}
    proba = classifier.predict_proba(list(rows), stage=stage)
    assert_allclose(probabilities(rows.values()), proba, atol=1e-6)
    assert {row["error"] for row in rows.values()} == {None}
    predicted = [row["predicted"] for row in rows.values()]
    names = classifier.class_names_
    if name == "fitted":
        assert predicted == [names[k] for k in classifier.predict(list(rows), stage=stage)]
    else:
        found = [[int(n in labels) for n in names] for labels in predicted]
        assert found == classifier.predict(list(rows), stage=stage).tolist()
    summary = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert summary == {"n_images": 30, "n_errors": 1, "stage": stage}
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("deaths", [2, 1000])
def test_a_file_that_ends_its_process_again_and_again_is_reported(
    fitted, folder, tmp_path, in_process, monkeypatch, deaths
):
    deadly, times = str(folder / "13.png"), [0]

    def predict_proba(self, X, **options):
        if deadly in X and times[0] < deaths:
            times[0] += 1
            raise Died
        return type(fitted).predict_proba(fitted, X, **options)

    monkeypatch.setattr(Mortal, "predict_proba", predict_proba)
    mortal = copy.copy(fitted)
    mortal.__class__ = Mortal
    done = scale.predict(folder, mortal, tmp_path / "out", batch_size=2)
    assert in_process.n_workers == 1 + times[0] == 1 + min(deaths, 5)
    rows = read(tmp_path / "out")
    assert len(rows) == 30
    assert [row["file"] for row in rows.values() if row["error"]] == list(done.errors)
    lost = {deadly} if deaths == 1000 else set()
    assert set(done.errors) == {str(folder / "07.png")} | lost
    assert not lost or "ended each of 2 times" in done.errors[deadly]
    assert not list((tmp_path / "out").glob(".*"))


def test_ray_is_started_and_ended_here_alone_and_sends_no_statistics(
    fitted, folder, tmp_path, in_process, monkeypatch
):
    scale.predict(folder, fitted, tmp_path / "a", num_cpus=2)
    assert in_process.events == ["init, usage stats 0", "shutdown"]
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    assert (in_process.concurrency, in_process.options["num_cpus"]) == (1, 2)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # who asks for them gets them
    scale.predict(folder, fitted, tmp_path / "b", num_cpus=1, memory=9)
    assert in_process.events[2:] == ["init, usage stats 1", "shutdown"]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert (in_process.concurrency, in_process.options["memory"]) == (3, 9)
    in_process.is_initialized = lambda: True
    scale.predict(folder, fitted, tmp_path / "c")
    assert len(in_process.events) == 4


def test_a_run_that_fails_says_that_the_folder_is_not_complete(
    fitted, folder, tmp_path, in_process, monkeypatch
):
    monkeypatch.setattr(scale.Predictor, "table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as told:
        scale.predict(folder, fitted, tmp_path)
    assert "it is not complete" in told.value.__notes__[0]
    assert not (tmp_path / "_summary.json").exists()
    assert in_process.events[-1] == "shutdown"


def test_shares_that_other_machines_wrote_elsewhere_are_missed(
    fitted, folder, tmp_path, in_process, monkeypatch
):
    monkeypatch.setattr(Folder, "files", lambda _: set())
    with pytest.raises(scale.DiffMICError, match="6 of 6 shares are not in"):
        scale.predict(folder, fitted, tmp_path / "out")


def test_files_in_an_archive_are_read_by_uri_and_written_to_one(
    fitted, folder, tmp_path, in_process
):
    archive = tmp_path / "a b.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for file in sorted(folder.iterdir())[:9]:
            made.write(file, f"deep/{file.name}")
        made.writestr("deep/.hidden.png", b"")
        made.writestr("notes.txt", b"")
    out = f"file://{tmp_path}/out"
    files = [f"zip://::{archive}", f"zip://nowhere.png::{archive}"]
    done = scale.predict(files, fitted, out, batch_size=2)
    rows = read(tmp_path / "out")
    assert (done.n_images, done.n_errors) == (10, 2)
    assert set(done.errors) == {f"zip://deep/07.png::{archive}", files[1]}
    assert "FileNotFoundError" in done.errors[files[1]]
    good = rows.keys() - set(done.errors)
    there = [str(folder / name[11:17]) for name in good]
    assert_allclose(
        probabilities(rows[name] for name in good), fitted.predict_proba(there), atol=1e-6
    )


@pytest.mark.parametrize("column", ["bytes", "image"])
def test_a_pipeline_of_ones_own_keeps_its_columns(fitted, folder, column):
    files = sorted(folder.iterdir())[:9]
    if column == "bytes":
        images, wrong = [file.read_bytes() for file in files], [7]
    else:
        images, wrong = list(stripes(30, seed=1)[0][:9]), []
    values = np.empty(9, dtype=object)
    values[:] = images
    batch = {column: values, "path": np.array(list(map(str, files))), "n": np.arange(9)}
    table = scale.Predictor(fitted)(batch)
    names = ["path", "n", "predicted", *(f"p_{c}" for c in fitted.class_names_), "error"]
    assert table.schema.names == names
    rows = table.to_pylist()
    assert [row["n"] for row in rows] == list(range(9))
    assert [i for i, row in enumerate(rows) if row["error"]] == wrong
    good = [i for i in range(9) if i not in wrong]
    assert_allclose(
        probabilities(rows[i] for i in good),
        fitted.predict_proba([images[i] for i in good]),
        atol=1e-6,
    )


def test_a_batch_without_images_names_its_columns(fitted):
    with pytest.raises(InputError, match=r"\['path'\].*'bytes'"):
        scale.Predictor(fitted)({"path": np.array(["a.png"])})


def test_a_batch_of_damaged_images_alone_has_the_same_columns(fitted):
    predictor = scale.Predictor(fitted)
    good = np.empty(1, dtype=object)
    good[0] = stripes(1)[0][0]
    assert (
        predictor({"bytes": np.array([b"no"], object)}).schema == predictor({"image": good}).schema
    )


# --- Shares and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_files", [1, 31, 5_000, 3_000_000])
@pytest.mark.parametrize("n_workers", [1, 7, 500])
def test_shares_keep_every_worker_busy_and_are_not_too_many(n_files, n_workers):
    size = scale.share_size(n_files, n_workers, 32)
    n_shares = -(-n_files // size)
    assert n_shares >= min(n_files, n_workers)
    assert n_shares <= max(2000, 2 * n_workers)


def test_files_are_named_as_they_were_given_and_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = listed(["01.png", "0[1-3].png", f"{folder}/04.png"])
    assert list(found) == ["01.png", "02.png", "03.png", f"{folder}/04.png"]
    assert [os.fsdecode(path) for path in found.values()] == [
        str(folder / f"0{n}.png") for n in range(1, 5)
    ]


def test_a_name_that_is_no_utf8_is_written_out(tmp_path):
    name = os.fsdecode(b"\xff.png")
    (tmp_path / name).touch()
    assert list(listed(tmp_path)) == [f"{tmp_path}/\\xff.png"]
    assert list(listed(tmp_path).values()) == [os.fsencode(tmp_path / name)]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "no files"),
        ("empty", "no image in this folder"),
        ("*.gif", "No file fits"),
        ("nowhere.png", "None of the files exists, such as 'nowhere.png'"),
        (["a.png", 3], "Entry 1 of files is 3"),
        (["a.png", " "], "Entry 1"),
        (7, "files is a int"),
        ("s9://bucket/scans", "Protocol not known"),
        ("file://empty/", "names no image"),
    ],
)
def test_files_that_are_none_are_refused_before_the_work(
    files, told, fitted, tmp_path, monkeypatch, in_process
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=told):
        scale.predict(files, fitted, "out")
    assert not in_process.events


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"out": "full"}, InputError, "is not empty"),
        ({"out": "full/a.png"}, InputError, "a file; give a folder"),
        ({"out": ""}, InputError, "out is ''"),
        ({"out": None}, InputError, "out is None"),
        ({"stage": "posterior"}, InputError, "stage is 'posterior'"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"concurrency": 0}, InputError, "concurrency is 0"),
        ({"model": Mortal()}, NotFittedError, "not fitted"),
        ({"model": 3}, InputError, "name is 3"),
    ],
)
def test_nonsense_is_refused_before_the_work(
    changes, error, told, fitted, folder, tmp_path, monkeypatch, in_process
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").touch()
    with pytest.raises(error, match=told):
        scale.predict(**{"files": folder, "model": fitted, "out": "out"} | changes)
    assert not in_process.events


def test_without_ray_it_is_said_how_to_get_it(fitted, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(scale.DiffMICError, match=r'pip install "diffmic\[ray\]"'):
        scale.predict(folder, fitted, tmp_path / "out")
