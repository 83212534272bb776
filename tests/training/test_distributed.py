"""Fits by several processes, which talk over the loopback address."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TRAINING, TinyBackbone, small, stripes
from together import CASES, record
from torch import nn

from diffmic import DiffMICClassifier, InputError
from diffmic.data import LabelledImages
from diffmic.random import LocalRNG
from diffmic.rows import Rows
from diffmic.training.distributed import Several, _after_restart
from diffmic.training.fingerprint import fingerprint
from diffmic.training.synchronised_norm import SynchronisedNorms

HALF = {"bf16": 0.05, "fp16": 0.01}  # tolerance: gradients are rounded before they are summed
SCRIPT = Path(__file__).parents[1] / "together.py"


def launched(n, *arguments, restarts=0):
    """Result of the script in n processes, none of which is left when this ends."""
    started = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr"),
            *("127.0.0.1", "--max-restarts", str(restarts), SCRIPT, *map(str, arguments)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=worker_environment(),
    )
    try:
        said = started.communicate(timeout=1500)
    finally:
        if started.poll() is None:
            started.terminate()  # torchrun ends its processes
            started.communicate(timeout=60)
    return subprocess.CompletedProcess(SCRIPT, started.returncode, *said)


def worker_environment():
    root = SCRIPT.parents[1]
    paths = [str(root), str(root / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_processes_give_what_one_gives_with_the_same_global_batch(n, tmp_path):
    cases = [case for case in CASES if case not in HALF] if n == 4 else ["default", *HALF]
    done = launched(n, tmp_path, *cases)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(n)]
    for case in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = record(case, distributed=False)
        main = found[0][case]
        atol = HALF.get(case, 5e-4)
        for stage in ("prior", "proba"):
            torch.testing.assert_close(main[stage], alone[stage], atol=atol, rtol=0)
        torch.testing.assert_close(main["losses"], alone["losses"], atol=atol, rtol=1e-4)
        for other in found[1:]:
            for name, tensor in main["weights"].items():
                assert torch.equal(other[case]["weights"][name], tensor), name
            assert torch.equal(other[case]["proba"], main["proba"])
            assert other[case]["verdict"] == main["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "unreadable"])
def test_all_processes_end_with_an_error_if_one_does(how, tmp_path):
    done = launched(2, how, tmp_path)
    assert done.returncode != 0
    told = (tmp_path / "0.txt").read_text() if (tmp_path / "0.txt").exists() else ""
    if how == "unreadable":
        assert "the disk of this machine is gone" in (tmp_path / "1.txt").read_text()
        assert told.startswith(("ProcessesError: Another process of this fit failed", "InputError"))
    assert "fitted" not in told
    assert not [*tmp_path.glob("*.tmp")]


@pytest.mark.slow
def test_a_restart_goes_on_from_the_checkpoint(tmp_path):
    folder = tmp_path / "restarted"
    folder.mkdir()
    done = launched(2, "restarted", folder, restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "first").touch()  # nobody dies
    assert launched(2, "restarted", whole).returncode == 0
    found, expected = (np.load(each / "proba.npy") for each in (folder, whole))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_done_together_is_refused_in_all_processes(tmp_path):
    done = launched(2, "refused", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for said in told:
        assert len(said) == 7
        assert "different data; numbers and checksums are {'training: pixels'" in said[0]
        assert "'training: targets'" in said[1]
        assert "number of images': [16, 15]" in said[2]
        assert "does not work with DiffMIC (v1)" in said[3]
        assert "time_limit is for a fit by one process" in said[4]
        assert "max_epochs is 0" in said[5]
    assert told[0][6] == told[1][6]  # random states were moved alike
    saved = DiffMICClassifier.from_pretrained(tmp_path / "model", backbone=TinyBackbone())
    assert saved.predict_proba(stripes(3)[0]).shape == (3, 3)
    assert not [*(tmp_path / "model").glob(".saving-*")]


def test_a_weight_used_in_one_process_alone_is_trained_in_all(monkeypatch):
    used, unused, elsewhere = (nn.Parameter(torch.ones(2)) for _ in range(3))
    used.grad = torch.tensor([1.0, 2.0])
    of_other = torch.tensor([1.0, 0, 1, 10, 10, 0, 0, 3, 4])
    several = Several.__new__(Several)
    monkeypatch.setattr(several, "reduce", lambda mine: mine + of_other)
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    several.sum_gradients(torch.optim.SGD([frozen, used, unused, elsewhere]))
    assert used.grad.tolist() == [11, 12]
    assert unused.grad is None
    assert elsewhere.grad.tolist() == [3, 4]


def test_a_checkpoint_is_of_any_gpu():
    """Each process has its own: that of process 0 wrote it."""
    images = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    part = LabelledImages(images, torch.eye(4), torch.ones(4))
    first, second = (
        fingerprint(part, None, replace(TRAINING, device=torch.device(name)), "network")
        for name in ("cuda:0", "cuda:1")
    )
    assert first == second


def test_addresses_of_before_a_restart_are_not_found_after_it(monkeypatch):
    """torchrun keeps its store: a process would wait for those that have died."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("address", "of the dead")
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "RANK": 0, "WORLD_SIZE": 1}
    for name, value in (told | {"TORCHELASTIC_USE_AGENT_STORE": True}).items():
        monkeypatch.setenv(name, str(value))
    assert _after_restart() == {}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    options = _after_restart()
    assert store.check(["address"])
    assert not options["store"].check(["address"])
    assert (options["rank"], options["world_size"]) == (0, 1)


def test_a_size_without_a_launcher_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE is 2, but no launcher"):
        DiffMICClassifier(**small(distributed=True)).fit(*stripes(24))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.rand(len(x), 3),
        lambda x: torch.randn((len(x), 3)),
        lambda x: torch.randint(50, (len(x), 3), device="cpu"),
        lambda x: torch.randn_like(x),
        lambda x: torch.multinomial(x.abs() + 1, 4, replacement=True),
        lambda x: torch.bernoulli(x.sigmoid()),
        lambda x: x.new_empty(len(x), 1).bernoulli_(0.5),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout2d(x[:, :, None, None].expand(-1, -1, 2, 2), 0.5),
        lambda x: F.dropout(x.repeat_interleave(3, 0), 0.5).view(len(x), 3, -1),  # of regions
        lambda x: torch.randn_like(x[:, :, None, None].to(memory_format=torch.channels_last)),
    ],
)
def test_random_numbers_are_those_of_the_whole_batch(draw):
    whole = torch.arange(28.0).view(7, 4) / 28
    with LocalRNG(1) as rng:
        expected, after = draw(whole), torch.rand(2)
    for index in ((0, 3, 6), (5, 1), (2,)):
        rng = LocalRNG(1)
        with rng.of_rows(Rows(7, index)):
            found = draw(whole[list(index)])
        torch.testing.assert_close(found, expected[list(index)])
        with rng:
            assert torch.equal(torch.rand(2), after)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 2)])
def test_batch_norm_of_two_processes_is_that_of_all_their_rows(shape):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) + 5).requires_grad_()
    target = torch.rand(shape, generator=generator)
    whole, part = (nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3) for _ in range(2))
    expected = whole(torch.cat([x, x]))[: len(x)]
    (gradient,) = torch.autograd.grad((expected * target).sum() * 2, x)
    with SynchronisedNorms(lambda mine: 2 * mine):  # another process has the same rows
        found = part(x)
    torch.testing.assert_close(found, expected)
    (mine,) = torch.autograd.grad((found * target).sum(), x)
    torch.testing.assert_close(2 * mine, gradient, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(part.running_var, whole.running_var)
    torch.testing.assert_close(part.running_mean, whole.running_mean)


def test_without_a_launcher_distributed_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    X, y = stripes(24)
    parameters = small(max_epochs=1)
    proba = [
        DiffMICClassifier(**parameters, distributed=distributed).fit(X, y).predict_proba(X[:3])
        for distributed in (False, True)
    ]
    assert (proba[0] == proba[1]).all()
    assert not torch.distributed.is_initialized()


def test_other_processes_are_left_alone_unless_asked(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    X, y = stripes(24)
    DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    assert not torch.distributed.is_initialized()


def test_distributed_is_a_bool():
    with pytest.raises(InputError, match="distributed is 'yes'; give True or False"):
        DiffMICClassifier(**small(distributed="yes")).fit(*stripes(24))
