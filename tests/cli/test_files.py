"""From arguments to image files."""

import io
import os
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from diffmic.cli.loading import image_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "deep/c.png", "deep/.hidden.png", ".secret/d.png", "odd[1].png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(file)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*arguments):
    return [named.name for named in image_files(arguments)]


def test_a_folder_is_its_images_and_those_below_sorted_without_hidden_ones(folder):
    assert names(".") == ["a.png", "b.png", "odd[1].png", os.path.join("deep", "c.png")]


def test_a_file_is_taken_whatever_it_is_so_that_its_fault_is_told(folder):
    assert names("notes.txt", "b.png") == ["notes.txt", "b.png"]


@pytest.mark.parametrize("pattern", ["**/*.png", "./**/c*", "dee*"])
def test_patterns_are_expanded_here_where_no_shell_does(folder, pattern):
    assert any(name.endswith(os.path.join("deep", "c.png")) for name in names(pattern))


def test_a_file_whose_name_looks_like_a_pattern_is_itself(folder):
    assert names("odd[1].png") == ["odd[1].png"]


def test_a_pattern_of_everything_names_no_file_twice(folder):
    found = names("**")
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("argument", "why"), [("no.png", "no such"), ("*.gif", "pattern"), ("empty", "no image")]
)
def test_what_is_not_there_is_told(folder, argument, why):
    [named] = image_files([argument])
    assert named.name == argument
    assert why in named.fault


@pytest.mark.parametrize(
    "listed", [b"a.png\nb.png", b"a.png\r\n\r\nb.png\r\n", b"a.png\0b.png\0", b"a.png\0b.png"]
)
def test_paths_come_from_standard_input_by_line_or_null_byte(folder, monkeypatch, listed):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listed)))
    assert names("-") == ["a.png", "b.png"]


def test_an_endless_list_is_read_as_it_comes(folder, monkeypatch):
    class Endless(io.RawIOBase):
        def readline(self, size=-1):
            return b"a.png\n"

        def __next__(self):
            return b"a.png\n"

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Endless()))
    stream = image_files(["-"])
    assert [next(stream).name for _ in range(5)] == ["a.png"] * 5


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_names_that_are_no_text_are_kept(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff.png\n")))
    assert [os.fsencode(name) for name in names("-")] == [b"\xff.png"]
