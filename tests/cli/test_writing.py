"""Writers of predictions."""

import csv
import json
from pathlib import Path

import pytest

from diffmic.cli import writing
from diffmic.cli.writing import format_of, writer
from diffmic.errors import DiffMICError, InputError

COLUMNS = ["file", "predicted", "p_a", "p_b"]
ROWS = [
    {"file": 'a,"1".png', "predicted": "a", "p_a": 0.75, "p_b": 0.25},
    {"file": "ü.png", "predicted": ["a", "b"], "p_a": 0.5, "p_b": 0.5},
]


def test_the_suffix_says_the_format_unless_one_is_given():
    assert format_of(None, None) == "csv"
    assert format_of(Path("x.CSV"), None) == "csv"
    assert format_of(Path("x.ndjson"), None) == "jsonl"
    assert format_of(Path("x.txt"), "jsonl") == "jsonl"


@pytest.mark.parametrize(("out", "asked"), [("x.txt", None), ("x", None), ("x.csv", "tsv")])
def test_unknown_formats_are_refused(out, asked):
    with pytest.raises(InputError):
        format_of(Path(out), asked)


def test_parquet_without_pyarrow_is_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DiffMICError, match=r"pip install \"diffmic\[parquet\]\""):
        format_of(Path("x.parquet"), None)
    with pytest.raises(InputError, match="--out"):
        format_of(None, "parquet")


def test_csv_can_be_read_back(tmp_path):
    file = tmp_path / "x.csv"
    with writer(file, "csv", COLUMNS) as write:
        write(ROWS)
    with file.open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    assert [row["file"] for row in found] == [row["file"] for row in ROWS]
    assert [row["predicted"] for row in found] == ["a", "a;b"]
    assert float(found[0]["p_a"]) == 0.75


def test_json_lines_can_be_read_back(tmp_path):
    file = tmp_path / "x.jsonl"
    with writer(file, "jsonl", COLUMNS) as write:
        write(ROWS)
    assert [json.loads(line) for line in file.read_text().splitlines()] == ROWS


def test_parquet_can_be_read_back(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    with writer(file, "parquet", COLUMNS) as write:
        write(ROWS[:1])
        write([])
        write(ROWS[:1])
    assert pq.read_table(file).to_pylist() == [ROWS[0], ROWS[0]]


def test_parquet_without_rows_has_the_columns(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    with writer(file, "parquet", COLUMNS):
        pass
    assert pq.read_table(file).column_names == COLUMNS


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_interrupted_output_keeps_another_name_and_an_earlier_one_stays(tmp_path, kind):
    file = tmp_path / "x.out"
    file.write_text("earlier")

    def interrupted():
        with writer(file, kind, COLUMNS) as write:
            write(ROWS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert file.read_text() == "earlier"
    assert "x.out.part" in caught.value.__notes__[0]
    assert len((tmp_path / "x.out.part").read_text().splitlines()) >= 2


def test_a_folder_that_is_not_there_is_told_before_the_work(tmp_path):
    for out in (tmp_path / "no" / "x.csv", tmp_path):
        with pytest.raises(InputError, match="folder"), writing.writer(out, "csv", COLUMNS):
            pass


def test_parquet_takes_batches_without_a_decision_or_a_label(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    file, columns = tmp_path / "x.parquet", ["file", "predicted", "undecided"]
    rows = [
        {"file": "a", "predicted": None, "undecided": []},
        {"file": "b", "predicted": "ill", "undecided": ["ill"]},
    ]
    with writer(file, "parquet", columns) as write:
        write(rows[:1])
        write(rows[1:])
    assert pq.read_table(file).to_pylist() == rows
