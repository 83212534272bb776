"""The cache of conditions: what is drawn, and that everything drawn belongs together."""

import pytest
import torch
import torch.nn.functional as F

from diffmic import InputError
from diffmic.model import Conditions
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL
from diffmic.training import cache as module
from diffmic.training.cache import ConditionCache, drawing_chances, drawing_ratio, room_for

N_IMAGES, N_VIEWS = 4, 3


@pytest.fixture
def cache():
    """Every tensor of row r says r: of view r // 4 and image r % 4."""
    rows = torch.arange(N_IMAGES * N_VIEWS).float()
    conditions = Conditions(
        global_logits=rows[:, None].repeat(1, 2),
        local_logits=rows[:, None].repeat(1, 2),
        image_features=rows[:, None].repeat(1, 5),
        region_features=rows[:, None, None].repeat(1, 6, 5),
        saliency=rows[:, None, None, None].repeat(1, 2, 4, 4),
        boxes=rows[:, None, None].repeat(1, 6, 4),
        attention=rows[:, None].repeat(1, 6),
        region_weights=rows[:, None].repeat(1, 6),
    )
    images = torch.arange(N_IMAGES).float()
    return ConditionCache(conditions, images[:, None].repeat(1, 2), images * 10)


def test_batches_pair_conditions_with_the_targets_of_their_image(cache):
    seen = set()
    for conditions, targets, weights in cache.batches(20, 8, torch.ones(N_IMAGES), LocalRNG(0)):
        rows = conditions.global_logits[:, 0]
        assert len(rows) == 8
        assert torch.equal(targets[:, 0], rows % N_IMAGES)
        assert torch.equal(weights, rows % N_IMAGES * 10)
        assert torch.equal(conditions.region_features[:, 5, 4], rows)
        seen |= set(rows.tolist())
    assert seen == set(range(N_IMAGES * N_VIEWS))  # every image in every view


def test_as_many_batches_come_as_are_asked_for(cache):
    assert len(list(cache.batches(7, 2, torch.ones(N_IMAGES), LocalRNG(0)))) == 7


def test_images_are_drawn_by_their_chances(cache):
    (_, targets, _), *_ = cache.batches(1, 4000, torch.tensor([0.0, 1.0, 1.0, 2.0]), LocalRNG(0))
    shares = torch.bincount(targets[:, 0].long(), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0, 0.25, 0.25, 0.5]), atol=0.03, rtol=0)


def test_scales_are_standard_deviations_over_images_and_regions(cache):
    image, region = cache.feature_scales()
    expected = torch.arange(12.0).std()
    torch.testing.assert_close(image, expected.expand(5))
    assert region.shape == (5,)
    torch.testing.assert_close(region, torch.arange(12.0).repeat_interleave(6).std().expand(5))


@pytest.mark.parametrize(
    ("balance", "shares"),
    [(0.0, [8 / 10, 2 / 10]), (1.0, [1 / 2, 1 / 2]), (0.5, [2 / 3, 1 / 3])],
)
@pytest.mark.parametrize("task", [MULTICLASS, ORDINAL])
def test_balance_evens_out_how_often_classes_are_drawn(balance, shares, task):
    targets = F.one_hot(torch.tensor([0] * 8 + [1] * 2)).float()
    chances = drawing_chances(targets, balance, task)
    by_class = torch.stack([chances[:8].sum(), chances[8:].sum()]) / chances.sum()
    torch.testing.assert_close(by_class, torch.tensor(shares))


def test_multi_label_images_are_drawn_as_they_are():
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    assert drawing_chances(targets, 1.0, MULTILABEL).tolist() == [1, 1, 1]
    assert drawing_ratio(targets, 1.0, MULTILABEL) is None


def test_without_balance_nothing_is_drawn_more_often_than_it_occurs():
    assert drawing_ratio(torch.eye(3), 0.0, MULTICLASS) is None


@pytest.mark.parametrize("balance", [0.5, 0.75, 1.0])
def test_the_ratio_is_how_much_more_often_a_class_is_drawn_than_it_occurs(balance):
    targets = F.one_hot(torch.tensor([0] * 8 + [1] * 2 + [2] * 5)).float()
    occurs = targets.mean(dim=0).double()
    chances = drawing_chances(targets, balance, MULTICLASS).double()
    drawn = targets.double().T @ chances / chances.sum()
    ratio = drawing_ratio(targets, balance, MULTICLASS)
    torch.testing.assert_close(ratio / ratio[0], (drawn / occurs) / (drawn / occurs)[0])


def test_a_class_without_images_is_no_trouble():
    targets = F.one_hot(torch.tensor([0, 0, 2]), 3).float()
    assert torch.isfinite(drawing_chances(targets, 1.0, MULTICLASS)).all()
    assert torch.isfinite(drawing_ratio(targets, 1.0, MULTICLASS)).all()


@pytest.mark.parametrize(
    ("device", "n_bytes", "expected"),
    [("cuda", 500, "cuda"), ("cuda", 501, "cpu"), ("cpu", 501, "cpu"), ("mps", 501, "mps")],
)
def test_conditions_stay_on_a_gpu_as_far_as_half_of_its_free_memory_goes(
    monkeypatch, device, n_bytes, expected
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 9999))
    assert module._home(n_bytes, torch.device(device)).type == expected


def test_room_is_made_where_there_is_some(cache, monkeypatch):
    asked = []
    like = cache.conditions.map(lambda tensor: tensor.to("meta"))
    n_bytes = 100 * sum(t[0].numel() * t.element_size() for t in vars(like).values())
    home = [torch.device("meta"), torch.device("cpu")]
    monkeypatch.setattr(module, "_home", lambda *asked_for: asked.append(asked_for) or home.pop(0))
    for expected in ("meta", "cpu"):
        room = room_for(100, like)
        assert {tensor.device.type for tensor in vars(room).values()} == {expected}
        assert len(room) == 100
    assert asked == [(n_bytes, torch.device("meta"))] * 2


def test_batches_of_what_is_kept_elsewhere_go_where_the_targets_are(cache):
    elsewhere = ConditionCache(cache.conditions, cache.targets.to("meta"), cache.weights.to("meta"))
    chances = torch.ones(N_IMAGES, device="cpu")
    for conditions, targets, weights in elsewhere.batches(2, 8, chances, LocalRNG(0)):
        found = [*vars(conditions).values(), targets, weights]
        assert {tensor.device.type for tensor in found} == {"meta"}
        assert {len(tensor) for tensor in found} == {8}
    assert {scale.device.type for scale in elsewhere.feature_scales()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_of_a_cache_on_the_cpu_come_without_waiting_for_the_gpu(cache):
    on_cpu = ConditionCache(cache.conditions, cache.targets.cuda(), cache.weights.cuda())
    batches = on_cpu.batches(3, 8, torch.ones(N_IMAGES), LocalRNG(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for conditions, targets, weights in found:
        assert conditions.image_features.device.type == "cuda"
        rows = conditions.global_logits[:, 0]
        assert torch.equal(targets[:, 0], rows % N_IMAGES)
        assert torch.equal(weights, rows % N_IMAGES * 10)


@pytest.mark.parametrize("on_disk", [False, True])
def test_room_holds_what_is_put_there(cache, monkeypatch, on_disk):
    monkeypatch.setattr(module, "LARGEST_IN_MEMORY", 0 if on_disk else 2**20)
    like = cache.conditions.without_pictures()
    room = room_for(100, like)
    for name, tensor in vars(room).items():
        expected = getattr(like, name)
        assert tensor.shape == (100, *expected.shape[1:])
        assert tensor.dtype == expected.dtype
        if not tensor.numel():
            continue
        tensor[7] = expected[3]
        assert torch.equal(tensor[torch.tensor([7])], expected[3:4])
        assert not tensor.requires_grad


def test_too_little_space_on_disk_is_an_error_that_says_where(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"MB in .* No space left .* TMPDIR"):
        room_for(100, cache.conditions)
