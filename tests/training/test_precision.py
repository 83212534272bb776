"""Devices, and mixed precision where it is asked for or the processor is fast with it."""

import pytest
import torch
from torch import nn

from diffmic import InputError
from diffmic.model.backbone import build_backbone
from diffmic.training import precision
from diffmic.training.precision import (
    MixedPrecision,
    has_bf16,
    resolve_device,
    round_to_half,
    to_device,
    training_precision,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))


def pretend(monkeypatch, *, cuda=False, mps=False, bf16=True, cpu_bf16=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(precision, "has_bf16", lambda: cpu_bf16)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, "cpu"),
        ({"mps": True}, "cpu"),  # it must be asked for until it can be tested
        ({"cuda": True}, "cuda"),
        ({"cuda": 1, "mps": 1}, "cuda"),
    ],
)
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, there, expected):
    pretend(monkeypatch, **there)
    assert resolve_device("auto") == torch.device(expected)


def test_a_device_can_be_named():
    assert resolve_device("cpu") == resolve_device(CPU) == CPU


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None, 3.5])
def test_a_device_that_is_not_there_is_an_error(device):
    with pytest.raises(InputError, match="'cpu' or 'auto'"):
        resolve_device(device)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_taken_as_it_is(name):
    assert training_precision(name, CPU, PLAIN) == MixedPrecision(CPU, name)


def test_an_unknown_precision_is_an_error():
    with pytest.raises(InputError, match=r"fp8.*fp32.*bf16.*fp16"):
        training_precision("fp8", CPU, PLAIN)


@pytest.mark.parametrize(
    ("device", "there", "network", "expected"),
    [
        (CUDA, {"bf16": True}, PLAIN, "bf16"),
        (CUDA, {"bf16": True}, DEPTHWISE, "bf16"),
        (CUDA, {"bf16": False}, PLAIN, "fp16"),
        (CPU, {"cpu_bf16": True}, PLAIN, "bf16"),
        (CPU, {"cpu_bf16": True}, DEPTHWISE, "bf16"),
        (CPU, {"cpu_bf16": False}, PLAIN, "fp32"),
        (torch.device("mps"), {"cpu_bf16": True}, PLAIN, "fp32"),
    ],
)
def test_auto_takes_the_precision_that_the_processor_is_fast_with(
    monkeypatch, device, there, network, expected
):
    pretend(monkeypatch, **there)
    assert training_precision("auto", device, network) == MixedPrecision(device, expected)


def test_networks_with_convolutions_have_channels_last():
    network = to_device(nn.Sequential(nn.Conv2d(3, 8, 3)), CPU)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_networks_without_convolutions_are_left_as_they_are():
    network = nn.Linear(3, 4)
    assert to_device(network, CPU) is network


@pytest.mark.parametrize(("size", "expected"), [(8, "fp32"), (64, "bf16")])
def test_images_of_a_cell_or_two_are_learnt_from_in_fp32(monkeypatch, size, expected):
    """oneDNN's bf16 gradient of a strided convolution on a single cell is wrong."""
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    backbone = build_backbone("test_resnet", image_size=size)
    assert training_precision("auto", CPU, backbone) == MixedPrecision(CPU, expected)


def test_rounded_weights_are_what_half_precision_holds_and_large_ones_stay():
    module = nn.BatchNorm2d(4)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1 / 3, 1e6, -1e-9, 2.0]))
    module.num_batches_tracked.fill_(70_001)
    round_to_half(module)
    third = float(torch.tensor(1 / 3).half())
    assert module.weight.tolist() == [third, 1e6, 0.0, 2.0]
    assert module.num_batches_tracked == 70_001


def test_bf16_instructions_are_what_linux_says(monkeypatch):
    has_bf16.cache_clear()
    texts = {
        "flags: fpu amx_bf16 avx2 amx_tile": True,
        "flags: fpu avx2 avx512_bf16": True,
        "flags: fpu avx2 amx_tile": False,
        "flags: fpu avx512f avx512_vnni": False,
    }
    for text, expected in texts.items():
        monkeypatch.setattr(precision.Path, "read_text", lambda *_, text=text, **__: text)
        assert has_bf16() == expected
        has_bf16.cache_clear()

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(precision.Path, "read_text", missing)
    assert not has_bf16()
    has_bf16.cache_clear()


@pytest.mark.parametrize(("name", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_forward_passes_are_made_in_the_named_arithmetic(name, expected):
    with MixedPrecision(CPU, name).autocast():
        assert nn.Linear(3, 4)(torch.rand(2, 3)).dtype == expected
    assert nn.Linear(3, 4)(torch.rand(2, 3)).dtype == torch.float32


@pytest.mark.parametrize(("name", "scaled"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_losses_are_scaled_in_fp16_alone(name, scaled):
    assert MixedPrecision(CPU, name).scaler().is_enabled() == scaled
