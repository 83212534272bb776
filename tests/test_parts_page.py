"""The page "Parts of your own" runs, cell by cell."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "parts.md"
CELLS = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::diffmic.DiffMICWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
def test_every_cell_runs_and_each_part_is_used(capsys, monkeypatch):
    pytest.importorskip("diffusers")
    module = type(pytest)("parts_page")  # classes in it are known by its name
    monkeypatch.setitem(__import__("sys").modules, "parts_page", module)
    for number, cell in enumerate(CELLS):
        exec(compile(cell, f"{PAGE.name}, cell {number}", "exec"), vars(module))
    told = capsys.readouterr().out
    assert "PartError" not in told
    assert "Pass these again: prior (it was parts_page.FoundationPrior)" in told
    assert "The denoiser of your own, parts_page.Mixer" in told
    assert np.allclose(
        module.explained.boxes[:, 0], module.drawn[module.drawn_on[:2]] * 64, atol=0.01
    )
    assert module.prior_clf.network_.prior.own.computed == 60
    for name in ("boxes", "prior", "mixer", "sampler", "process", "cost", "calibrated"):
        proba = getattr(module, f"{name}_clf").predict_proba(module.X[60:64])
        assert np.allclose(proba.sum(axis=1), 1)


def test_every_protocol_has_a_section():
    text = PAGE.read_text()
    for heading in (
        "region finder",
        "prior",
        "denoiser",
        "sampler",
        "process",
        "loss",
        "calibration",
    ):
        assert f"## A {heading}: " in text
