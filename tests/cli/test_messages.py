"""Advice in the words of a command, and tables in a terminal."""

import ast
import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import diffmic
from diffmic.cli import app
from diffmic.cli.messages import _ADVICE, in_commands, show, told
from diffmic.errors import warn_user

MARKDOWN = (
    "Some words.\n\n"
    "| class | images | sensitivity | specificity | precision | F1 | AUC |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
    "| spiculated_lesion [b]*x* | 4 | 0.000 (0.000 to 0.125) | 1.000 (1.000 to 1.000) | – "
    "| 0.500 (0.154 to 0.737) | 0.594 (0.222 to 0.909) |"
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Say levels='split/label'.", "Say --levels 'split/label'."),
        ("The column 'a b' holds files: pass image='a b'", "give --image 'a b'"),
        ("Say which columns they are: image=, label=, group=.", ": --image, --label, --group."),
        ("say label= one of ['x']", "say --label one of ['x']"),
        ("as folder=, or remove the rows", "as --folder, or remove"),
        ("pass task='auto'.", "give --task 'auto'."),
        ("Fit with DiffMICClassifier(value_range=(-1, 0.5)).", "Train with --value-range -1 0.5."),
        (
            "black, or fit with DiffMICClassifier(value_range=(low, high));",
            "or train with --value-r",
        ),
        ("for example value_range=(-1000, 400) for", "example --value-range -1000 400 for"),
    ],
)
def test_arguments_of_python_are_options_in_a_command(message, expected):
    assert expected in in_commands(message)


@pytest.mark.parametrize(
    "message",
    [
        "data/label='1'/x.png",
        "C:\\group='2'\\x.png",
        "'label='3'.png'",
        "n_image='4'",
        "a/value_range=(0, 1)",
    ],
)
def test_names_of_files_stay_as_they_are(message):
    assert in_commands(message) == message


def test_what_is_told_of_several_batches_is_told_once(capsys):
    with told():
        for batch in (["a.png", "b.png"], ["c.png"]):
            warn_user(f"{len(batch)} of 4 images have several frames. The first: {batch}.")
    assert capsys.readouterr().err.count("several frames") == 1


def texts():
    """Texts in the code of the library outside the command, by file; {} is what is put in."""
    for file in Path(diffmic.__file__).parent.rglob("*.py"):
        if "cli" in file.parts:
            continue
        nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
        pieces = {id(p) for node in nodes if isinstance(node, ast.JoinedStr) for p in node.values}
        for node in nodes:
            if id(node) in pieces:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                yield file, "".join(parts).replace("{}; {}", "{}")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file, node.value


def test_every_advice_that_is_exchanged_is_one_that_the_library_gives():
    given = [text for _, text in texts()]
    given.append("{}: fit(X, y, groups=inspection.groups) keeps them together.")  # of a constant
    given.append(", or leave it out with exclude=")
    for advice in _ADVICE:
        assert any(advice in text for text in given), advice


def test_what_is_said_of_a_file_that_cannot_be_read_can_be_done_with_a_command():
    names = ("dicom", "arrays", "formats", "images", "pillow", "ranges", "reading", "survey")
    advised = re.compile(r"[Pp]ass (the array|an array|each|arrays)|value_range=\(|register_|PIL\.")
    advice = [text for file, text in texts() if file.stem in names and advised.search(text)]
    assert len(advice) > 15
    assert [text for text in map(in_commands, advice) if advised.search(text)] == []


def test_the_advice_on_a_file_of_several_frames_is_one_for_a_command(tmp_path, saved):
    examples = pytest.importorskip("pydicom.examples")
    shutil.copy(examples.get_path("ybr_color"), tmp_path / "film.dcm")  # of 30 frames
    done = CliRunner().invoke(app, ["predict", str(saved), str(tmp_path / "film.dcm")])
    assert "save them in Python as .npy files" in done.stderr
    assert "train with --value-range low high" in done.stderr
    assert "value_range" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [80, 200])
def test_a_table_fits_a_terminal_with_nothing_cut_off(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", Terminal())
    show(MARKDOWN)
    lines = sys.stdout.getvalue().splitlines()
    assert lines[0] == "Some words."
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    words = "".join(lines).split()
    assert {"sensitivity", "specificity", "precision", "–"} <= set(words)
    row = next(line for line in lines if " 4 " in line)
    assert row.split()[-4:] == ["1.000", "–", "0.500", "0.594"]


def test_a_terminal_too_narrow_for_a_table_gets_its_text(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", Terminal())
    show(MARKDOWN)
    assert MARKDOWN.partition("\n\n")[2] in sys.stdout.getvalue()


def test_in_a_pipe_a_table_is_markdown(capsys):
    show(MARKDOWN)
    assert capsys.readouterr().out == MARKDOWN + "\n"
