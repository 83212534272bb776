"""On a GPU: the same answers as on the CPU."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tiny import TinyBackbone, small, stripes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffmic import DiffMICClassifier
from diffmic.data import LabelledImages, PreparedImages, read_inputs
from diffmic.training import resolve_recipe
from diffmic.training.options import pixels

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
]


def test_a_model_predicts_the_same_on_the_gpu_and_on_the_cpu(fitted, new_images, tmp_path):
    fitted.save_pretrained(tmp_path)
    on_gpu = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cuda")
    assert next(on_gpu.network_.parameters()).device.type == "cuda"
    for stage in ("prior", "diffusion"):
        assert_allclose(
            on_gpu.predict_proba(new_images[0], stage=stage),
            fitted.predict_proba(new_images[0], stage=stage),
            atol=1e-3,
        )
    assert_allclose(
        on_gpu.explain(new_images[0]).saliency, fitted.explain(new_images[0]).saliency, atol=1e-3
    )


def test_a_fitted_model_moves_to_the_gpu_and_back(fitted, new_images):
    expected = fitted.predict_proba(new_images[0])
    moved = copy.deepcopy(fitted).to("cuda")
    assert next(moved.network_.parameters()).device.type == "cuda"
    assert_allclose(moved.predict_proba(new_images[0]), expected, atol=1e-3)
    assert_allclose(moved.to("cpu").predict_proba(new_images[0]), expected, atol=1e-5)


class NoFloat64OnTheGPU(TorchDispatchMode):
    """Refuses what a device without float64 could not make."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda":
                assert tensor.dtype != torch.float64, func
        return found


@pytest.mark.parametrize("recipe", ["default", "paper-v2"])
def test_no_float64_is_made_on_a_gpu(images, recipe):
    parameters = small(device="cuda", max_epochs=1, recipe=recipe)
    if recipe == "paper-v2":
        short = replace(resolve_recipe("paper-v2"), denoiser_epochs=1, n_positions=9)
        parameters |= small(
            device="cuda",
            max_epochs=1,
            recipe=short,
            prior_backbone=TinyBackbone(),
            region_backbone=TinyBackbone(),
            n_regions=3,
            region_size=8,
        )
    with NoFloat64OnTheGPU():
        classifier = DiffMICClassifier(**parameters).fit(*images)
        classifier.predict_proba(images[0])


def test_the_prior_learns_the_same_on_the_gpu_and_on_the_cpu(images, new_images):
    parameters = {"augment": None, "max_epochs": 2, "precision": "fp32"}
    on_cpu, on_gpu = (
        DiffMICClassifier(**small(device=device, **parameters)).fit(*images)
        for device in ("cpu", "cuda")
    )
    assert_allclose(
        on_gpu.predict_proba(new_images[0], stage="prior"),
        on_cpu.predict_proba(new_images[0], stage="prior"),
        atol=1e-3,
    )


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_every_precision_learns_on_a_gpu(precision):
    X, y = stripes(60)
    classifier = DiffMICClassifier(
        **small(device="cuda", precision=precision, max_epochs=12, augment=None)
    ).fit(X, y)
    assert classifier.score(X, y) > 0.9
    assert classifier.predict_proba(X).dtype == np.float64


def test_a_pickle_from_a_gpu_holds_its_tensors_on_the_cpu(images):
    classifier = DiffMICClassifier(**small(device="cuda", max_epochs=1)).fit(*images)
    copied = pickle.loads(pickle.dumps(classifier))
    assert next(copied.network_.parameters()).device.type == "cpu"
    assert next(classifier.network_.parameters()).device.type == "cuda"
    assert_allclose(copied.predict_proba(images[0]), classifier.predict_proba(images[0]), atol=1e-3)


def test_the_gpus_random_state_is_left_alone(images):
    before = torch.cuda.get_rng_state()
    DiffMICClassifier(**small(device="cuda", max_epochs=1)).fit(*images).predict_proba(images[0])
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_batches_of_stage_one_come_without_waiting_for_the_device(images):
    X, y = images
    part = LabelledImages(read_inputs(X).images, torch.eye(3)[y], torch.ones(len(y)))
    loader = PreparedImages(part.images, 32).loader(16, shuffle=True, pin_memory=True)
    device = torch.device("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [
            (pixels(batch["image"], device), *part.labels(batch["index"], device), batch["index"])
            for batch in loader
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for pictures, targets, weights, index in found:
        assert {t.device.type for t in (pictures, targets, weights)} == {"cuda"}
        assert targets.argmax(dim=1).tolist() == y[index].tolist()


def test_the_steps_of_the_sampler_never_wait_for_the_device(fitted, new_images, monkeypatch):
    network = copy.deepcopy(fitted.network_).to("cuda").eval()
    images = torch.rand(3, 3, 32, 32, device="cuda")
    noise = network.noise(2, torch.Generator().manual_seed(0))
    denoise = type(network).denoise

    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error")  # from the first step on
        return denoise(*arguments)

    monkeypatch.setattr(type(network), "denoise", watched)
    with torch.inference_mode():
        conditions = network.encode(images)
        try:
            scores = network.sample(conditions, noise, num_steps=5)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert scores.isfinite().all()
