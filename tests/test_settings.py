"""Settings of torch around a call do not get in, and are as they were afterwards."""

import contextlib
import copy
import inspect
import pickle
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier
from diffmic.settings import own_settings, undisturbed

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(40)
BACKBONE = TinyBackbone()  # made outside of any setting


def new(**parameters):
    return DiffMICClassifier(
        **small(**{"backbone": BACKBONE, "max_epochs": 1, "feature_dim": 32} | parameters)
    )


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == dtype
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device() == torch.device(device)
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "deterministic": deterministic,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.fixture(scope="module")
def fitted():
    return new().fit(X, Y)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save_pretrained(folder)
    return folder


def load(folder):
    return DiffMICClassifier.from_pretrained(folder, backbone=BACKBONE, device="cpu")


def saved(fitted, folder, tmp_path):
    fitted.save_pretrained(tmp_path / "other")
    return [(tmp_path / "other" / name).read_bytes() for name in ("config.json",)]


CALLS = {
    "fit": lambda fitted, *_: new().fit(X, Y).network_.state_dict().values(),
    "fit without": lambda fitted, *_: [new(validation_fraction=None).fit(X, Y).predict_proba(X)],
    "predict_proba": lambda fitted, *_: [fitted.predict_proba(X)],
    "predict_log_proba": lambda fitted, *_: [fitted.predict_log_proba(X)],
    "views": lambda fitted, *_: [fitted.predict_proba(X, n_views=2, n_draws=1)],
    "predict": lambda fitted, *_: [fitted.predict(X)],
    "score": lambda fitted, *_: [fitted.score(X, Y)],
    "evaluate": lambda fitted, *_: fitted.evaluate(X, Y)["prior"].values(),
    "transform": lambda fitted, *_: [fitted.transform(X)],
    "explain": lambda fitted, *_: vars(fitted.explain(X)).values(),
    "save": saved,
    "load": lambda fitted, folder, _: [load(folder).predict_proba(X)],
    "pickle": lambda fitted, *_: [pickle.loads(pickle.dumps(fitted)).predict_proba(X)],
    "copy": lambda fitted, *_: [copy.deepcopy(fitted).predict_proba(X)],
    "compile": lambda fitted, *_: [copy.copy(fitted).compile().predict_proba(X)],
    "precision": lambda fitted, *_: [copy.copy(fitted).set_params(precision="fp32").predict(X)],
    "warm start": lambda fitted, *_: [
        copy.copy(fitted).set_params(warm_start=True).fit(X, Y).predict_proba(X)
    ],
}


@pytest.fixture(scope="module")
def expected(fitted, folder, tmp_path_factory):
    return {
        name: list(call(fitted, folder, tmp_path_factory.mktemp("expected")))
        for name, call in CALLS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_around_a_call_does_not_get_in(fitted, folder, expected, setting, tmp_path):
    for name, call in CALLS.items():
        grad = torch.is_grad_enabled()
        (tmp_path / name).mkdir()
        with SETTINGS[setting]():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            found = list(call(fitted, folder, tmp_path / name))
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before, name
        assert torch.is_grad_enabled() == grad
        for one, other in zip(found, expected[name], strict=True):
            assert_array_equal(np.asarray(one), np.asarray(other), err_msg=name)


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_was_made_under_a_setting_works_without_it(folder, expected, setting):
    with SETTINGS[setting]():
        loaded, trained = load(folder), new().fit(X, Y)
    assert_array_equal(loaded.predict_proba(X), expected["load"][0])
    assert_array_equal(trained.predict_proba(X), expected["predict_proba"][0])


def test_numbers_of_threads_are_the_callers(fitted, expected):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_allclose(fitted.predict_proba(X), expected["predict_proba"][0], atol=1e-6)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_type_of_new_tensors_is_restored_by_the_last_of_several_threads():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with own_settings():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with default_dtype(torch.float64):
        with own_settings():
            thread.start()
            entered.wait(60)
        assert torch.get_default_dtype() == torch.float32  # the other is not done
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


def test_an_error_restores_everything():
    @undisturbed
    def failing():
        raise KeyError

    with torch.autocast("cpu"), torch.no_grad(), default_dtype(torch.float64):
        with pytest.raises(KeyError):
            failing()
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()


def test_signatures_and_documents_are_those_of_the_methods():
    assert "groups" in inspect.signature(DiffMICClassifier.fit).parameters
    assert DiffMICClassifier.fit.__doc__.startswith("Fit the prior")
    assert "revision" in inspect.signature(DiffMICClassifier.from_pretrained).parameters


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_module_of_another_type_is_trained_in_float32(dtype, tmp_path):
    clf = new(backbone=TinyBackbone().to(dtype)).fit(X, Y)
    assert {tensor.dtype for tensor in clf.network_.parameters()} == {torch.float32}
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(
        tmp_path, backbone=TinyBackbone().to(dtype), device="cpu"
    )
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
