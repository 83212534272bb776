"""The files of a saved model: complete, plain, and read strictly."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from diffmic import InputError, ModelFileError
from diffmic.hub import files
from diffmic.hub.card import sealed
from diffmic.hub.configuration import read_config
from diffmic.hub.files import (
    check_tensors,
    check_weights,
    digest,
    finish_save,
    load_weights,
    save_files,
)

KEYS = {"classes", "seed"}


def network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def config(**changes):
    return {"classes": ["gut", "böse"], "seed": 7} | changes


@pytest.fixture
def folder(tmp_path):
    save_files(tmp_path / "a" / "model", config(), network())
    return tmp_path / "a" / "model"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def load(folder, network):
    """Everything that loading weights takes."""
    checksum = read_config(folder, KEYS)["weights_sha256"]
    check_tensors(check_weights(folder, checksum), network, where=str(folder))
    load_weights(folder, network)
    return network


def edit(folder, change):
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def replace_weights(folder, change):
    """Other tensors, with a checksum that fits."""
    file = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file)
    edit(folder, lambda config: config.update(weights_sha256=digest(file.read_bytes())))


def test_a_model_is_a_configuration_and_weights_and_nothing_else(folder):
    assert contents(folder).keys() == {"config.json", "model.safetensors"}


def test_both_come_back_as_they_were_saved(tmp_path):
    saved, loaded = network(), network()
    with torch.no_grad():
        saved[1].running_mean.fill_(0.25)
    save_files(tmp_path, config(), saved)
    assert config().items() < read_config(tmp_path, KEYS).items()
    load(tmp_path, loaded)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_tensors_of_any_memory_layout_are_saved(tmp_path):
    saved, loaded = (nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2))
    save_files(tmp_path, config(), saved)
    load(tmp_path, loaded)
    assert torch.equal(saved.weight, loaded.weight)


def test_the_configuration_is_readable_text(folder):
    text = (folder / "config.json").read_text(encoding="utf-8")
    assert "böse" in text
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 3


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_files(tmp_path, config(), network())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {mode}


def test_saving_again_replaces_the_old_model(folder):
    other = network()
    save_files(folder, config(seed=8), other)
    loaded = load(folder, network())
    assert torch.equal(loaded[0].weight, other[0].weight)
    assert read_config(folder, KEYS)["seed"] == 8


class Interrupted(BaseException):
    """Like KeyboardInterrupt, but nobody else's."""


@pytest.mark.parametrize("when", range(1, 4))
def test_a_save_interrupted_while_writing_leaves_the_old_files_whole(folder, monkeypatch, when):
    before, sync, written = contents(folder), os.fsync, []

    def failing_sync(file):
        written.append(file)
        if len(written) == when:
            raise Interrupted
        sync(file)

    monkeypatch.setattr(os, "fsync", failing_sync)
    with pytest.raises(Interrupted):
        save_files(folder, config(seed=8), network(), card=sealed("made"))
    assert contents(folder) == before


@pytest.mark.parametrize("first", [True, False], ids=["first save", "second save"])
@pytest.mark.parametrize("when", range(1, 4))
def test_a_save_killed_while_its_files_take_their_places_is_finished_by_who_comes_next(
    tmp_path, monkeypatch, when, first
):
    """As after a power cut: nothing is tidied up."""
    if not first:
        save_files(tmp_path, config(), network(), card=sealed("made"))
    replace, replaced = Path.replace, []

    def failing_replace(*paths):
        replaced.append(paths)
        if len(replaced) == when:
            raise Interrupted
        replace(*paths)

    saved = network()
    monkeypatch.setattr(Path, "replace", failing_replace)
    with pytest.raises(Interrupted):
        save_files(tmp_path, config(seed=8), saved, card=sealed("new"))
    monkeypatch.undo()
    finish_save(tmp_path)
    assert set(contents(tmp_path)) == {"config.json", "model.safetensors", "README.md"}
    assert (tmp_path / "README.md").read_text() == sealed("new")
    assert read_config(tmp_path, KEYS)["seed"] == 8
    assert torch.equal(load(tmp_path, network())[0].weight, saved[0].weight)


def test_two_that_finish_the_same_save_do_not_mind_each_other(folder, monkeypatch):
    replace = Path.replace
    leave_unfinished(folder, monkeypatch, seed=8)

    def overtaken(file, target):
        replace(file, target)  # the other one
        replace(file, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    finish_save(folder)
    assert not (folder / ".saved").exists()
    assert read_config(folder, KEYS)["seed"] == 8


def test_saves_at_the_same_time_leave_one_of_them_whole(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(save_files, tmp_path, config(seed=seed), network()) for seed in range(20)
        ]:
            done.result()
    assert read_config(tmp_path, KEYS)["seed"] in range(20)
    load(tmp_path, network())
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def leave_unfinished(folder, monkeypatch, **changes):
    """As a save that was killed before its files took their places."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "finish_save", lambda folder: None)
        save_files(folder, config(**changes), network(), card=sealed("new"))
    assert (folder / ".saved").is_dir()


def test_a_card_written_after_a_killed_save_stays(folder, monkeypatch):
    leave_unfinished(folder, monkeypatch, seed=8)
    (folder / "README.md").write_text("# Mine\n")
    finish_save(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert read_config(folder, KEYS)["seed"] == 8
    assert not (folder / ".saved").exists()


def link_to_the_folder(complete, other):
    complete.symlink_to(other, target_is_directory=True)


def link_to_a_file(complete, other):
    complete.mkdir()
    (complete / "config.json").symlink_to(other / "config.json")


def folder_for_a_file(complete, other):
    (complete / "config.json").mkdir(parents=True)


def file_of_another_name(complete, other):
    complete.mkdir()
    (complete / "notes.txt").write_text("")


def file_for_the_folder(complete, other):
    complete.write_text("")


@pytest.mark.parametrize(
    "make",
    [
        *(link_to_the_folder, link_to_a_file, folder_for_a_file),
        *(file_of_another_name, file_for_the_folder),
    ],
)
def test_what_no_save_left_is_refused_and_nothing_is_moved(folder, tmp_path, make):
    save_files(tmp_path / "other", config(seed=9), network())
    make(folder / ".saved", tmp_path / "other")
    ours = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    theirs = contents(tmp_path / "other")
    for visit in (finish_save, lambda folder: save_files(folder, config(seed=8), network())):
        with pytest.raises(ModelFileError, match=r"\.saved.*delete it"):
            visit(folder)
    assert contents(tmp_path / "other") == theirs
    assert {name: (folder / name).read_bytes() for name in ours} == ours
    assert {file.name for file in folder.iterdir()} == {*ours, ".saved"}


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path, inside):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"No folder can be made at .*file"):
        save_files(
            tmp_path / "file" / "model" if inside else tmp_path / "file", config(), network()
        )
    assert (tmp_path / "file").read_text() == "mine"


def test_one_tensor_under_two_names_is_saved_under_both(tmp_path):
    layer = nn.Linear(2, 2)
    save_files(tmp_path, config(), nn.Sequential(layer, layer))
    loaded = load(tmp_path, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert torch.equal(loaded[0].weight, layer.weight)
    assert torch.equal(loaded[1].weight, layer.weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_weights_of_another_type_are_refused(folder, dtype):
    replace_weights(folder, lambda tensors: {n: t.to(dtype) for n, t in tensors.items()})
    with pytest.raises(ModelFileError, match="of another type"):
        load(folder, network())


def test_weights_that_are_no_numbers_are_refused(folder):
    replace_weights(folder, lambda tensors: {**tensors, "0.weight": tensors["0.weight"] / 0})
    with pytest.raises(ModelFileError, match=r"0\.weight.*NaN or infinity"):
        load(folder, network())


def test_what_json_cannot_hold_leaves_the_old_files_whole(folder):
    before = contents(folder)
    with pytest.raises(InputError, match="cannot be written as JSON"):
        save_files(folder, config(seed=object()), network())
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(extra=1), r"unknown keys \['extra'\]"),
        (lambda c: c.pop("seed"), r"missing keys \['seed'\]"),
        (lambda c: c.update(format_version=99), "version 99.*Update diffmic"),
        (lambda c: c.update(format_version=True), "version True"),
        (lambda c: c.pop("format_version"), "not a model of diffmic"),
    ],
)
def test_an_unfitting_configuration_is_an_error_that_names_what_is_wrong(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelFileError, match=message):
        read_config(folder, KEYS)


@pytest.mark.parametrize(
    "text", ["", "{", '{"seed": NaN}', '{"seed": 1, "seed": 2}', "[]", "null", '"text"', "\xff\xfe"]
)
def test_a_damaged_configuration_is_an_error_that_names_the_file(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFileError, match=r"config\.json"):
        read_config(folder, KEYS)


@pytest.mark.parametrize("missing", ["folder", "config.json"])
def test_what_is_no_model_is_an_error_that_says_so(folder, missing):
    if missing == "folder":
        folder = folder / "nowhere"
    else:
        (folder / missing).unlink()
    with pytest.raises(ModelFileError, match="not a saved model"):
        read_config(folder, KEYS)


def test_missing_weights_are_an_error(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"has no model\.safetensors"):
        load(folder, network())


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_truncated_weights_are_an_error(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match="is damaged"):
        load(folder, network())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("1.bias"), r"missing \['1.bias'\]"),
        (lambda t: t.update(extra=torch.zeros(1)), r"surplus \['extra'\]"),
        (lambda t: t.update({"1.bias": torch.zeros(4)}), r"shape \['1.bias'\]"),
    ],
)
def test_tensors_that_do_not_fit_are_an_error_that_names_them(folder, change, message):
    def changed(tensors):
        change(tensors)
        return tensors

    replace_weights(folder, changed)
    loaded = network()
    before = loaded[0].weight.clone()
    with pytest.raises(ModelFileError, match=message):
        load(folder, loaded)
    assert torch.equal(loaded[0].weight, before)


def test_weights_of_another_save_are_an_error(folder):
    file = folder / "model.safetensors"
    file.write_bytes(safetensors.torch.save(network().state_dict()))
    with pytest.raises(ModelFileError, match=r"checksum .* belongs to another save"):
        load(folder, network())


def test_a_header_that_claims_more_than_the_file_holds_is_an_error(folder):
    claim = {"0.weight": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    header = json.dumps(claim).encode()
    for forged in (header, b" " * 16):
        length = len(header) if forged is header else 2**62
        (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + forged)
        with pytest.raises(ModelFileError, match="is damaged"):
            load(folder, network())


def test_half_precision_takes_half_the_space_and_comes_back_as_floats(tmp_path):
    saved = nn.Linear(100, 100)
    for dtype in ("float32", "float16"):
        save_files(tmp_path / dtype, config(), saved, dtype=dtype)
    sizes = {d.name: (d / "model.safetensors").stat().st_size for d in tmp_path.iterdir()}
    assert 0.5 <= sizes["float16"] / sizes["float32"] < 0.52
    loaded = load(tmp_path / "float16", nn.Linear(100, 100))
    assert loaded.weight.dtype == torch.float32
    assert torch.equal(loaded.weight, saved.weight.half().float())


def test_what_half_precision_cannot_hold_is_refused(folder):
    before, large = contents(folder), network()
    with torch.no_grad():
        large[1].running_var.fill_(1e6)
    with pytest.raises(InputError, match=r"1\.running_var.*float32"):
        save_files(folder, config(), large, dtype="float16")
    with pytest.raises(InputError, match="bfloat16"):
        save_files(folder, config(), network(), dtype="bfloat16")
    assert contents(folder) == before


@pytest.mark.parametrize("card", ["# Mine\n", "", "\xff"])
def test_a_card_that_a_person_wrote_stays(folder, card):
    (folder / "README.md").write_bytes(card.encode("latin-1"))
    save_files(folder, config(), network(), card=sealed("made"))
    assert (folder / "README.md").read_bytes() == card.encode("latin-1")


def test_a_card_is_made_again_until_somebody_writes_in_it(folder):
    for text in ("first", "second"):
        save_files(folder, config(), network(), card=sealed(text))
        assert (folder / "README.md").read_text().startswith(text)
    changed = (folder / "README.md").read_text().replace("second", "second, I say")
    (folder / "README.md").write_text(changed)
    save_files(folder, config(), network(), card=sealed("third"))
    assert (folder / "README.md").read_text() == changed
