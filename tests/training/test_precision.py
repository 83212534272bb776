"""Devices, mixed precision, and Accelerate's state, which belongs to the whole process."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from diffmic import InputError
from diffmic.data import PreparedImages
from diffmic.model.backbone import build_backbone
from diffmic.training.precision import (
    accelerator_for,
    resolve_device,
    round_to_half,
    to_device,
    training_precision,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))


@pytest.fixture(autouse=True)
def fresh_state():
    """Accelerate's state is empty before and after each test."""

    def clear():
        for state in (AcceleratorState, PartialState, GradientState):
            state._shared_state.clear()

    clear()
    yield
    clear()


def pretend(monkeypatch, *, cuda=False, mps=False, bf16=True, amx=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
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


@pytest.mark.parametrize(("name", "expected"), [("fp32", "no"), ("bf16", "bf16"), ("fp16", "fp16")])
def test_a_named_precision_is_taken_as_it_is(name, expected):
    assert training_precision(name, CPU, PLAIN) == expected


def test_an_unknown_precision_is_an_error():
    with pytest.raises(InputError, match=r"fp8.*fp32.*bf16.*fp16"):
        training_precision("fp8", CPU, PLAIN)


@pytest.mark.parametrize(
    ("device", "there", "network", "expected"),
    [
        (CUDA, {"bf16": True}, PLAIN, "bf16"),
        (CUDA, {"bf16": True}, DEPTHWISE, "bf16"),
        (CUDA, {"bf16": False}, PLAIN, "fp16"),
        (CPU, {"amx": True}, PLAIN, "bf16"),
        (CPU, {"amx": True}, DEPTHWISE, "bf16"),
        (CPU, {"amx": False}, PLAIN, "no"),
        (torch.device("mps"), {"amx": True}, PLAIN, "no"),
    ],
)
def test_auto_takes_the_precision_that_the_processor_is_fast_with(
    monkeypatch, device, there, network, expected
):
    pretend(monkeypatch, **there)
    assert training_precision("auto", device, network) == expected


def test_networks_with_convolutions_have_channels_last():
    network = to_device(nn.Sequential(nn.Conv2d(3, 8, 3)), CPU)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_networks_without_convolutions_are_left_as_they_are():
    network = nn.Linear(3, 4)
    assert to_device(network, CPU) is network


def test_accelerates_state_is_as_before_when_nothing_used_it():
    with accelerator_for(CPU, "bf16") as accelerator:
        assert accelerator.mixed_precision == "bf16"
        assert accelerator.device.type == "cpu"
    for state in (AcceleratorState, PartialState, GradientState):
        assert state._shared_state == {}


def test_batches_stay_where_they_are_until_they_are_used():
    """Accelerate would copy all of them to the device, and wait; the index is needed on the CPU."""
    images = PreparedImages(torch.zeros(4, 3, 8, 8), 8)
    with accelerator_for(CPU, "no") as accelerator:
        accelerator.state.device = torch.device("meta")
        for batch in accelerator.prepare(images.loader(2)):
            assert {tensor.device for tensor in batch.values()} == {CPU}


def test_an_accelerator_of_the_users_own_keeps_its_precision():
    own = Accelerator(mixed_precision="bf16", cpu=True)
    for precision in ("no", "bf16"):
        with accelerator_for(CPU, precision) as accelerator:
            assert accelerator.mixed_precision == precision
        assert own.mixed_precision == "bf16"
        assert Accelerator(cpu=True).mixed_precision == "bf16"


def test_accelerates_state_comes_back_after_an_error():
    Accelerator(mixed_precision="bf16", cpu=True)
    before = dict(AcceleratorState._shared_state)
    with pytest.raises(KeyError), accelerator_for(CPU, "no"):
        raise KeyError
    assert AcceleratorState._shared_state == before


@pytest.mark.parametrize(("size", "expected"), [(8, "no"), (64, "bf16")])
def test_images_of_a_cell_or_two_are_learnt_from_in_fp32(monkeypatch, size, expected):
    """oneDNN's bf16 gradient of a strided convolution on a single cell is wrong."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    backbone = build_backbone("test_resnet", image_size=size)
    assert training_precision("auto", torch.device("cpu"), backbone) == expected


def test_rounded_weights_are_what_half_precision_holds_and_large_ones_stay():
    module = nn.BatchNorm2d(4)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1 / 3, 1e6, -1e-9, 2.0]))
    module.num_batches_tracked.fill_(70_001)
    round_to_half(module)
    third = float(torch.tensor(1 / 3).half())
    assert module.weight.tolist() == [third, 1e6, 0.0, 2.0]
    assert module.num_batches_tracked == 70_001
