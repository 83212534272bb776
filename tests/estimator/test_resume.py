"""A fit that was interrupted goes on from its checkpoint as if nothing had happened."""

import errno
import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from sklearn.base import clone
from tiny import RECIPE, small

import diffmic.training.checkpoint_file as files
from diffmic import CheckpointError, DiffMICClassifier, DiffMICWarning, InputError
from diffmic.callbacks import Callback, StopTraining
from diffmic.training import checkpoint
from diffmic.training.checkpoint import Checkpoints

TINY = {"max_epochs": 2, "batch_size": 16, "augment": None}
N_WRITES = 2 + 2 + 1  # each epoch of both stages, and their end
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Warnings are looked at by the tests that are about them."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("recipe", "n_kills"), [("cached", 20), ("joint", 10)])
def test_a_fit_that_is_killed_at_random_moments_ends_as_the_undisturbed_one(recipe, n_kills):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_fits.py"), recipe, str(n_kills), "0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(went_on == "True" for _, _, went_on in results)
    for expected, found, _ in results:
        assert found == expected


def interrupted(folder, after, images, monkeypatch, **parameters):
    """A fit that is interrupted after some checkpoints."""
    classifier = DiffMICClassifier(**small(checkpoint_dir=folder, **TINY | parameters))
    write, n = Checkpoints._write, []

    def counting(self, *values):
        write(self, *values)
        n.append(1)
        if len(n) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_write", counting)
        with pytest.raises(KeyboardInterrupt):
            classifier.fit(*images)
    return classifier


def same(one, other, new_images):
    own, others = one.network_.state_dict(), other.network_.state_dict()
    assert all(torch.equal(tensor, others[name]) for name, tensor in own.items())
    np.testing.assert_array_equal(*(c.predict_proba(new_images[0]) for c in (one, other)))
    assert one.validation_scores_ == other.validation_scores_
    rows = [[{**row, "seconds": 0} for row in c.history_] for c in (one, other)]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def undisturbed(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        return DiffMICClassifier(**small(**TINY)).fit(*images)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("after", range(1, N_WRITES + 1))
def test_a_fit_goes_on_from_each_checkpoint(
    after, images, new_images, tmp_path, monkeypatch, undisturbed
):
    interrupted(tmp_path, after, images, monkeypatch)
    gone_on = DiffMICClassifier(**small(checkpoint_dir=str(tmp_path), **TINY))
    gone_on.fit(*images, resume=True)
    same(gone_on, undisturbed, new_images)
    assert len(names(tmp_path)) <= 2
    assert gone_on.get_params()["checkpoint_dir"] == str(tmp_path)
    assert clone(gone_on).checkpoint_dir == str(tmp_path)


def uncached(**changes):
    return replace(RECIPE, cached=False, n_cached_views=0, **changes)


@pytest.mark.parametrize("n_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "recipe", [uncached(), uncached(joint=True, balance=0.0)], ids=["encoded", "joint"]
)
def test_a_fit_goes_on_within_an_epoch_and_reads_no_image_again(
    recipe, n_workers, images, new_images, tmp_path, monkeypatch
):
    parameters = TINY | {"recipe": recipe, "num_workers": n_workers, "batch_size": 10}
    expected = DiffMICClassifier(**small(**parameters)).fit(*images)
    n_batches = 5  # of 45 images; the last is not whole, and the order is drawn at its end
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    of_stage_one = 2 * n_batches
    for after in (2, n_batches - 1, of_stage_one + 1, of_stage_one + 3):
        folder = tmp_path / str(after)
        interrupted(folder, after, images, monkeypatch, **parameters)
        classifier = DiffMICClassifier(**small(checkpoint_dir=folder, **parameters))
        same(classifier.fit(*images, resume=True), expected, new_images)


def test_a_fit_that_ended_gives_its_model_again_without_training(
    images, new_images, tmp_path, monkeypatch, undisturbed
):
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY)).fit(*images)
    same(classifier, undisturbed, new_images)  # checkpoints change nothing
    monkeypatch.setattr("diffmic.training.loop._trained", None)
    same(clone(classifier).fit(*images, resume=True), undisturbed, new_images)


def test_a_fresh_seed_is_that_of_the_fit_that_goes_on(images, new_images, tmp_path, monkeypatch):
    before = interrupted(tmp_path, 3, images, monkeypatch, random_state=None)
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, random_state=None, **TINY))
    classifier.fit(*images, resume=True)
    assert classifier.seed_ == before.seed_
    expected = DiffMICClassifier(**small(random_state=before.seed_, **TINY)).fit(*images)
    same(classifier, expected, new_images)


# --- What there is to go on from ----------------------------------------------------------------


def test_resume_without_a_folder_is_an_error(images):
    with pytest.raises(InputError, match="no checkpoint_dir"):
        DiffMICClassifier(**small()).fit(*images, resume=True)
    with pytest.raises(InputError, match="resume is 'yes'"):
        DiffMICClassifier(**small()).fit(*images, resume="yes")
    with pytest.raises(InputError, match=r"checkpoint_dir is 3; give the path"):
        DiffMICClassifier(**small(checkpoint_dir=3)).fit(*images)


def test_without_a_checkpoint_the_fit_starts_from_the_beginning(
    images, new_images, tmp_path, undisturbed
):
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path / "new" / "one", **TINY))
    with pytest.warns(DiffMICWarning, match="no checkpoint in .* starts from the beginning"):
        classifier.fit(*images, resume=True)
    same(classifier, undisturbed, new_images)


def test_a_fit_that_replaces_the_checkpoint_of_one_that_did_not_end_says_so(
    images, tmp_path, monkeypatch
):
    interrupted(tmp_path, 3, images, monkeypatch)
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    with pytest.warns(DiffMICWarning, match="after epoch 1 of the diffusion stage.*resume=True"):
        classifier.fit(*images)


def other_labels(images):
    return {"y": np.roll(images[1], 1)}


def other_pixels(images):
    return {"X": 255 - images[0]}


def fewer(images):
    return {"X": images[0][:-1], "y": images[1][:-1]}


def weighted(images):
    return {"sample_weight": np.linspace(1, 2, len(images[1]))}


def softened(images):
    return {"soft_labels": 0.9 * np.eye(3)[images[1]] + 0.1 / 3}


@pytest.mark.parametrize(
    ("given", "parameters", "message"),
    [
        (other_labels, {}, r"data\.training\.targets"),
        (other_pixels, {}, r"data\.training\.pixels"),
        (fewer, {}, r"number of images was 45 and is 4\d"),
        (weighted, {}, r"data\.training\.weights"),
        (softened, {}, r"data\.training\.soft labels"),
        (None, {"learning_rate": 0.02}, r"learning_rate was 0.01 and is 0.02"),
        (None, {"max_epochs": 3}, r"max_epochs was 2 and is 3"),
        (None, {"random_state": 1}, r"parameters\.seed was 0 and is 1"),
        (None, {"recipe": replace(RECIPE, ema=None)}, r"recipe\.ema was 0\.1 and is None"),
        (None, {"num_steps": 4}, r"sampling\.num_steps was 3 and is 4"),
        (None, {"validation_fraction": None}, r"data\.validation"),
        (None, {"feature_dim": 8}, r"architecture\.feature_dim was 16 and is 8"),
        (None, {"augment": "rotations"}, r"augment was None and is 'rotations'"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_before_training(
    given, parameters, message, images, tmp_path, monkeypatch
):
    interrupted(tmp_path, 1, images, monkeypatch)
    before = names(tmp_path)
    data = {"X": images[0], "y": images[1]} | (given(images) if given else {})
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY | parameters))
    with pytest.raises(CheckpointError, match=rf"another fit: .*{message}.*resume=False"):
        classifier.fit(**data, resume=True)
    assert names(tmp_path) == before
    assert not hasattr(classifier, "model_")


def test_what_does_not_matter_may_be_another(
    images, new_images, tmp_path, monkeypatch, undisturbed
):
    interrupted(tmp_path, 2, images, monkeypatch)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    classifier = DiffMICClassifier(
        **small(checkpoint_dir=moved, **TINY | {"num_workers": 1, "batch_size": 16})
    )
    same(classifier.fit(*images, resume=True), undisturbed, new_images)


# --- Damage --------------------------------------------------------------------------------------


def cut(content):
    return content[: len(content) // 2]


def empty(_):
    return b""


def bit_of_a_weight(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def bit_of_a_value(content):
    place = content.index(b"best_epoch") + 14
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut, empty, bit_of_a_weight, bit_of_a_value])
def test_instead_of_a_damaged_checkpoint_the_one_before_is_used(
    damage, images, new_images, tmp_path, monkeypatch, undisturbed
):
    interrupted(tmp_path, 3, images, monkeypatch)
    newest = tmp_path / names(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    with pytest.warns(DiffMICWarning, match=r"checkpoint-3.*is damaged.*epoch 2 of the prior"):
        classifier.fit(*images, resume=True)
    same(classifier, undisturbed, new_images)


def repacked(file, change):
    """Write a checkpoint with other values, and the checksum that belongs to them."""
    with safetensors.safe_open(file, framework="pt") as content:
        header = content.metadata()
        tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
    values = json.loads(header["values"])
    change(header, values["items"], tensors)
    header["values"] = json.dumps(values)
    header["sha256"] = files._digest(header["values"], tensors)
    file.write_bytes(safetensors.torch.save(tensors, header))


def older(header, values, tensors):
    header["diffmic_checkpoint"] = "0"


def nothing(header, values, tensors):
    values.clear()


def stage(header, values, tensors):
    values["stage"] = "third"


def no_tensor(header, values, tensors):
    values["loop"]["items"]["learner"]["items"]["weight"] = {"tensor": "nowhere"}


def other_shape(header, values, tensors):
    name = next(name for name in tensors if name.startswith("/loop/learner"))
    tensors[name] = torch.zeros(7)


def no_groups(header, values, tensors):
    values["loop"]["items"]["optimizer"]["items"]["param_groups"] = []


def moments(header, values, tensors):
    name = next(name for name in tensors if "exp_avg" in name)
    tensors[name] = torch.zeros(3)


def generator(header, values, tensors):
    tensors["/loop/rng/cpu"] = torch.zeros(3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (older, "version '0'; this diffmic reads version 1"),
        (nothing, "damaged"),
        (stage, "damaged"),
        (no_tensor, "damaged"),
        (other_shape, "does not fit"),
        (no_groups, "does not fit"),
        (moments, "does not fit"),
        (generator, "does not fit"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_an_error_that_names_it(
    change, message, images, tmp_path, monkeypatch
):
    interrupted(tmp_path, 1, images, monkeypatch)
    repacked(tmp_path / "checkpoint-1.safetensors", change)
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    with pytest.raises(
        CheckpointError, match=rf"checkpoint-1.safetensors.*{message}.*resume=False"
    ):
        classifier.fit(*images, resume=True)
    assert not hasattr(classifier, "model_")
    classifier.fit(*images)  # from the beginning, it works


@pytest.mark.parametrize("resume", [True, False])
def test_files_of_others_stay(resume, images, tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "checkpoint-500.safetensors")
    before = (tmp_path / "checkpoint-500.safetensors").read_bytes()
    for name in ("checkpoint-trial", "checkpoint-notes.tmp"):
        (tmp_path / name).write_text("mine")
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    with pytest.raises(CheckpointError, match=r"500.safetensors' is none of diffmic.*move"):
        classifier.fit(*images, resume=resume)
    assert (tmp_path / "checkpoint-500.safetensors").read_bytes() == before
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_into_which_another_fit_writes_is_refused(resume, images, tmp_path, monkeypatch):
    """The second begins while the first is within its second stage, and after it has ended."""
    first, second = (
        DiffMICClassifier(**small(checkpoint_dir=tmp_path, random_state=seed, **TINY))
        for seed in (0, 1)
    )
    write, kept = Checkpoints._write, []
    monkeypatch.setattr(checkpoint, "_LINGER", 0)

    def beside(self, *values):
        write(self, *values)
        kept.append(names(tmp_path))
        if len(kept) == 3:
            (tmp_path / "checkpoint-9.safetensors.tmp").touch()
            with pytest.raises(CheckpointError, match="Another fit writes checkpoints into"):
                second.fit(*images, resume=resume)
            assert names(tmp_path) == sorted([*kept[-1], "checkpoint-9.safetensors.tmp"])

    monkeypatch.setattr(Checkpoints, "_write", beside)
    first.fit(*images)
    second.fit(*images, resume=False)
    with pytest.raises(CheckpointError, match=r"parameters\.seed was 1"):
        first.fit(*images, resume=True)
    first.set_params(random_state=1).fit(*images, resume=True)


def test_a_fit_in_the_folder_of_a_killed_process_waits_for_what_is_left_of_it(images, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    timer = threading.Timer(1, os.close, [held])
    timer.start()
    DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY)).fit(*images)
    timer.join()


def test_two_fits_without_locks_are_told_and_keep_their_checkpoints(images, tmp_path, monkeypatch):
    """The second begins while the first is within its second stage, and is interrupted."""
    monkeypatch.setattr(checkpoint, "fcntl", None)
    first = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    write, n = Checkpoints._write, []

    def beside(self, *values):
        write(self, *values)
        n.append(1)
        if len(n) == 3:
            n.append(1)
            second = clone(first).set_params(random_state=1)
            with pytest.raises(CheckpointError, match=r"parameters\.seed was 0"):
                second.fit(*images, resume=True)
            interrupted(tmp_path, 1, images, monkeypatch, random_state=1)

    monkeypatch.setattr(Checkpoints, "_write", beside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiffMICWarning)
        first.fit(*images)
    assert len([w for w in caught if "Another fit writes" in str(w.message)]) == 1
    seeds = [files.read(file).seed for file in tmp_path.iterdir()]
    assert sorted(seeds) == [0, 0, 1]


@pytest.mark.parametrize("began_from_a_model", [False, True])
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_warm_start_goes_on_with_the_same_estimator(
    after, began_from_a_model, images, new_images, tmp_path, monkeypatch
):
    def fitted(folder):
        classifier = DiffMICClassifier(**small(warm_start=True, **TINY))
        if began_from_a_model:
            classifier.fit(*images)
        return classifier.set_params(checkpoint_dir=folder)

    expected = fitted(None).fit(*images)
    classifier, write, n = fitted(tmp_path), Checkpoints._write, []

    def interrupting(self, *values):
        write(self, *values)
        n.append(1)
        if len(n) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "_write", interrupting)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*images)
    classifier.fit(*images, resume=True)
    same(classifier, expected, new_images)


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("answer", [True, StopTraining("enough")])
def test_a_fit_that_is_stopped_before_it_goes_on_is_that_of_the_checkpoint(
    after, answer, images, new_images, tmp_path, monkeypatch
):
    class Enough(Callback):
        def on_fit_start(self, moment):
            if isinstance(answer, StopTraining):
                raise answer
            return answer

    before = interrupted(tmp_path, after, images, monkeypatch)
    stopped = DiffMICClassifier(**small(checkpoint_dir=tmp_path, callbacks=[Enough()], **TINY)).fit(
        *images, resume=True
    )
    same_stage = {"stage": "prior"} if after == 1 else {}
    np.testing.assert_array_equal(
        *(c.predict_proba(new_images[0], **same_stage) for c in (stopped, before))
    )
    assert len(stopped.history_) == after
    assert stopped.validation_scores_ == before.validation_scores_


# --- A disk that is full, a folder that cannot be written -----------------------------------------


def failing_from(monkeypatch, n, error):
    """Make writes fail from the n-th on."""
    fsync, calls = os.fsync, []

    def failing(descriptor):
        calls.append(1)
        if len(calls) >= n:
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", failing)


def test_a_full_disk_is_a_warning_and_the_last_checkpoint_stays(
    images, new_images, tmp_path, monkeypatch, undisturbed
):
    # A trial, then two calls for each write, for the file and its folder.
    failing_from(monkeypatch, 1 + 2 * 2 + 1, errno.ENOSPC)
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path, **TINY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiffMICWarning)
        classifier.fit(*images)
    told = [str(w.message) for w in caught if "checkpoint" in str(w.message)]
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert "checkpoint-2.safetensors" in told[0]
    same(classifier, undisturbed, new_images)
    assert names(tmp_path) == ["checkpoint-1.safetensors", "checkpoint-2.safetensors"]
    monkeypatch.undo()
    gone_on = clone(classifier).fit(*images, resume=True)
    same(gone_on, undisturbed, new_images)


def test_a_folder_that_cannot_be_written_is_an_error_before_training(images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", "nul\0byte"):
        classifier = DiffMICClassifier(**small(checkpoint_dir=folder))
        with pytest.raises(InputError, match=r"checkpoint_dir is .* no file can be written"):
            classifier.fit(*images)
    failing_from(monkeypatch, 1, errno.EROFS)
    with pytest.raises(InputError, match=r"Read-only file system"):
        DiffMICClassifier(**small(checkpoint_dir=tmp_path)).fit(*images)
    assert names(tmp_path) == ["file"]


def test_the_folder_is_not_part_of_a_saved_model(images, tmp_path):
    classifier = DiffMICClassifier(**small(checkpoint_dir=tmp_path / "c", **TINY)).fit(*images)
    classifier.save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "model", backbone=classifier.backbone)
    assert loaded.checkpoint_dir is None
