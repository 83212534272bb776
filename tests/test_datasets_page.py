"""The page "Public data sets": its snippets run, on small downloads."""

import re
from functools import partial
from pathlib import Path

import downloads
import numpy as np
import pytest
from tiny import small

import diffmic.datasets
from diffmic import DiffMICClassifier

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"


@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_the_snippets_run_one_after_another(tmp_path, monkeypatch):
    sizes = {"aptos": 20, "ham10000": 56, "chestxray14": 30, "busi": 8, "idrid": 5}
    for name, size in sizes.items():
        getattr(downloads, name)(tmp_path / name, size)
    arrays = {}
    for split, n in (("train", 20), ("val", 8), ("test", 8)):
        rng = np.random.RandomState(n)
        arrays[f"{split}_images"] = rng.randint(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2)[:, None]
    (tmp_path / "medmnist").mkdir()
    np.savez(tmp_path / "medmnist" / "pneumoniamnist.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(code) == 5
    made = partial(DiffMICClassifier, **small(max_epochs=1, image_size=32))
    monkeypatch.setattr(diffmic, "DiffMICClassifier", made)
    names: dict[str, object] = {}
    for snippet in code:
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert names["clf"].class_names_ == ["normal", "pneumonia"]


def test_every_reader_is_on_the_page_and_in_the_api():
    api = PAGE.with_name("api.md").read_text(encoding="utf-8")
    for name in diffmic.datasets.__all__:
        if name.startswith("read_"):
            assert f"diffmic.datasets.{name}" in api
            assert f"`{name}`" in PAGE.read_text(encoding="utf-8") or name in (
                "read_csv",
                "read_folders",
            )
