"""Every formula against reference tensors, at the tolerance that their float type allows.

The reference puts the classes second, (B, C, K, K); we put them last.
"""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from diffmic.diffusion import (
    DriftProcess,
    NoiseSchedule,
    ddim,
    dense_guidance_map,
    expand_distances,
    focal_loss,
    focal_weights,
    guidance_by_distance,
    leading_timesteps,
    mmd,
    posterior,
    scores_by_distance,
)
from diffmic.diffusion.parameterization import PARAMETERIZATIONS
from diffmic.model import (
    Backbone,
    ContextFusion,
    Denoiser,
    GatedAttention,
    ImageContext,
    VectorDenoiser,
    top_mean,
)
from diffmic.model.backbone import TimmFeatures
from diffmic.model.denoiser import TimeGain
from diffmic.model.regions import (
    Corners,
    RegionChoice,
    crop,
    importance_map,
    window_cells,
)
from diffmic.model.vector import label_scores
from diffmic.tasks import MULTICLASS

FOLDER = Path(__file__).parent / "golden"


def golden(name, dtype=torch.float32):
    tensors = load_file(next(FOLDER.glob(f"{name}_*.safetensors")))
    return {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}


def last(maps):
    """(..., C, K, K) → (..., K, K, C)."""
    return maps.movedim(-3, -1)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0, check_dtype=False)


@pytest.mark.parametrize("n_positions", [4, 6])
def test_a_guidance_map(n_positions):
    g = golden("a")
    expected = last(g[f"map_k{n_positions}"])
    close(dense_guidance_map(g["y_global"], g["y_local"], n_positions), expected, 1e-6)
    by_distance = guidance_by_distance(g["y_global"], g["y_local"], n_positions)
    close(scores_by_distance(by_distance), expected.mean(dim=(1, 2)), 1e-6)


def test_b_forward_process():
    g, schedule = golden("b"), NoiseSchedule()
    close(schedule.betas, g["betas"], 1e-7)
    close(schedule.alphas_cumprod, g["alphas_cumprod"], 3e-6)
    noisy = schedule.add_noise(g["y0_onehot"], last(g["noise"]), g["timesteps"])
    close(noisy, last(g["y_t"]), 3e-6)


@pytest.mark.parametrize("suffix", ["", "_multihot"])
def test_c_focal_loss(suffix):
    g = golden("c")
    targets = g[f"targets{suffix or '_onehot'}"]
    predicted = last(g["eps_pred"]).clone().requires_grad_()
    confidence = MULTICLASS.confidence(g["prior_logits"], targets)
    loss = focal_loss(predicted, last(g["eps_true"]), confidence)
    loss.backward()
    close(loss, g[f"loss{suffix}"][0], 3e-6)
    close(predicted.grad, last(g[f"grad_eps_pred{suffix}"]), 1e-7)
    if not suffix:
        close(focal_weights(confidence), g["sample_weights"], 3e-6)


def test_d1_time_conditioned_layer():
    g = golden("d1")
    layer = TimeGain(5, 7, 1000)
    layer.load_state_dict(
        {
            "linear.weight": g["conv_weight"],
            "linear.bias": g["conv_bias"],
            "gain": g["time_embedding"][:1000],  # the reference's last row is never used
        }
    )
    close(layer(last(g["input"]), g["timesteps"]), last(g["output"]), 1e-6)


def denoiser_and_context(dtype):
    """The networks of d2 and e; features are given already projected."""
    w = weights("d2", dtype)
    context = ContextFusion(16, 16, 6, 16).to(dtype).eval()
    context.image_projection = context.region_projection = nn.Identity()
    context.fusion_logits.data = w["fusion_logits"]
    context.image_norm.load_state_dict(norm(w, "image_bn"), strict=False)
    context.region_norm.load_state_dict(norm(w, "patch_bn"), strict=False)
    return with_weights(Denoiser(3, 16, 1000), w, dtype), context


def weights(name, dtype):
    """Those of a network."""
    return {k[2:]: t for k, t in golden(name, dtype).items() if k.startswith("w.")}


def norm(w, prefix):
    """A batch norm's state."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    return {ours: w[f"{prefix}.{theirs}"] for ours, theirs in names.items()}


def with_weights(denoiser, w, dtype):
    """A denoiser in evaluation mode, with the weights of a golden one."""
    denoiser = denoiser.to(dtype).eval()
    for number in range(3):
        name = f"layer{number + 1}"
        denoiser.layers[number].load_state_dict(
            {
                "linear.weight": w[f"{name}.weight"],
                "linear.bias": w[f"{name}.bias"],
                "gain": w[f"{name}.time_embedding"][:1000],
            }
        )
        denoiser.norms[number].load_state_dict(norm(w, f"{name}.bn"), strict=False)
    denoiser.out.load_state_dict({"weight": w["out.weight"], "bias": w["out.bias"]})
    return denoiser


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 5e-6)])
@pytest.mark.parametrize("mode", ["eval", "train_mode"])
@torch.no_grad()
def test_d2_denoiser(dtype, tolerance, mode):
    g = golden("d2", dtype)
    denoiser, context = denoiser_and_context(dtype)
    denoiser.train(mode == "train_mode")
    context.train(mode == "train_mode")
    fused = context(g["image_feature"], g["patch_features"])
    if mode == "eval":
        close(fused, g["fused_feature"], tolerance)
    output = denoiser(last(g["guidance_map"]), last(g["noisy_map"]), g["timesteps"], fused)
    close(output, last(g[f"eps_{mode}"]), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-6), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", ["e", "e2"])
@torch.no_grad()
def test_e_ddim_trajectory(name, dtype, tolerance):
    conditions, g = golden("e", dtype), golden(name, dtype)
    denoiser, context = denoiser_and_context(dtype)
    schedule = NoiseSchedule(dtype=dtype)
    timesteps = leading_timesteps(1000, 10)
    assert timesteps == conditions["timesteps"].tolist()
    close(schedule.alphas_cumprod[timesteps], conditions["alpha_bar"], tolerance)
    fused = context(conditions["image_feature"], conditions["patch_features"])
    guidance = last(conditions["guidance_map"])

    def denoise(y, t):
        return PARAMETERIZATIONS["noise"].denoised(
            denoiser(guidance, y, t, fused), y, schedule.signal[t], schedule.noise[t]
        )

    seen = []
    final = ddim(
        denoise,
        last(g["y"][0]),
        schedule,
        timesteps,
        callback=lambda t, y, denoised: seen.append((y, denoised)),
    )
    for step, (y, denoised) in enumerate(seen):
        close(y, last(g["y"][step]), tolerance)
        close(denoised.noise, last(g["eps"][step]), tolerance)
        close(denoised.label, last(g["x0_clipped"][step]), tolerance)
    close(final, last(g["y_final"]), tolerance)
    close(final, last(g["y_final_float32_run"]), 2e-5)
    close(final.mean(dim=(1, 2)), g["scores"], tolerance)


@torch.no_grad()
def test_e_by_distance_gives_the_same_scores():
    g = golden("e", torch.float64)
    denoiser, context = denoiser_and_context(torch.float64)
    schedule = NoiseSchedule(dtype=torch.float64)
    fused = context(g["image_feature"], g["patch_features"])
    first_row = (slice(None), 0)  # distance d occurs at (0, d)
    guidance, start = last(g["guidance_map"])[first_row], last(g["y"][0])[first_row]
    close(expand_distances(start), last(g["y"][0]), 0)

    def denoise(y, t):
        return PARAMETERIZATIONS["noise"].denoised(
            denoiser(guidance, y, t, fused), y, schedule.signal[t], schedule.noise[t]
        )

    final = ddim(denoise, start, schedule, leading_timesteps(1000, 10))
    close(scores_by_distance(final), g["scores"], 2e-6)


def test_e_scheduler_configuration_is_ours():
    config = json.loads((FOLDER / "scheduler.json").read_text())
    schedule = NoiseSchedule(config["config"]["num_train_timesteps"])
    assert leading_timesteps(1000, 10) == config["timesteps"]
    close(
        schedule.alphas_cumprod[config["timesteps"]].double(),
        torch.tensor(config["alpha_bar"], dtype=torch.float64),
        3e-6,
    )


@pytest.mark.parametrize(("pixels", "suffix"), [(32, ""), (64, "_crop64")])
def test_f1_regions(pixels, suffix):
    g = golden("f1")
    window = window_cells((pixels, pixels), (224, 224), (7, 7))
    importance = importance_map(g["cam"], MULTICLASS, "paper")
    cells, _ = RegionChoice((7, 7), 6, window)(importance)
    assert torch.equal(cells, g[f"roi_cells{suffix}"])
    corners = Corners.scaled((7, 7), (224, 224))(cells)
    assert torch.equal(corners, g[f"roi_pixels{suffix}"])
    crops = crop(g["image"], corners, (pixels, pixels))
    if suffix:
        close(crops[:, :, 0].mean(dim=(2, 3)), g["crops_crop64_mean"], 1e-6)
    else:
        assert torch.equal(crops[:, :, 0], g["crops"])  # the reference cuts channel 0 alone


@pytest.mark.parametrize(("fraction", "name"), [(1.0, "y_global_t100"), (0.2, "y_global_t20")])
def test_f1_global_logits(fraction, name):
    g = golden("f1")
    close(top_mean(g["cam"], fraction), g[name], 1e-6)


def test_f2_gated_attention():
    g = golden("f2")
    attention = GatedAttention(512, 128)
    attention.load_state_dict({"V.weight": g["V"], "U.weight": g["U"], "w.weight": g["w"][None]})
    pooled, weights = attention(g["crop_features"])
    close(weights, g["attention"], 2e-6)
    close(pooled, g["pooled"], 2e-6)
    close(pooled @ g["classifier"].T, g["y_local"], 2e-6)


# --- DiffMIC (v1) --------------------------------------------------------------------------------


def drift(dtype, spacing="last"):
    return DriftProcess(NoiseSchedule(dtype=dtype), timestep_spacing=spacing)


def test_g1_schedule():
    g, schedule = golden("g1"), NoiseSchedule()
    close(schedule.betas, g["betas"], 1e-7)
    close(schedule.signal, g["sqrt_alpha_bar"], 1e-6)
    close(schedule.noise, g["sqrt_one_minus_alpha_bar"], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_g1_labels_drift_to_the_prior(dtype):
    g = golden("g1", dtype)
    noisy = drift(dtype)(g["y0"], g["noise"], g["t"], g["prior_mean"])
    close(noisy, g["y_t"], 1e-6)


@pytest.mark.parametrize("t", [1, 42, 59, 999])
def test_g1_coefficients_of_a_step(t):
    alpha_bar, coefficients = drift(torch.float32).alpha_bar, golden("g1")[f"step{t}.coef"]
    step = posterior(alpha_bar[t], alpha_bar[t - 1])
    expected = dict(zip(("gamma_0", "gamma_1", "gamma_2"), coefficients[5:8], strict=True))
    expected["sigma"] = coefficients[8].sqrt()
    for name, value in expected.items():
        assert getattr(step, name) == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-6)])
@pytest.mark.parametrize("t", [1, 42, 59, 999])
def test_g1_a_step_back(t, dtype, tolerance):
    g, process = golden("g1", dtype), drift(dtype)
    inputs, prior = {n: g[f"step{t}.{n}"] for n in ("y_t", "eps", "z")}, g["prior_mean"]
    noise = torch.zeros(4, 1001, 3, dtype=dtype)
    noise[:, 1000], noise[:, t] = inputs["y_t"] - prior, inputs["z"]
    seen = []

    def denoise(y, at):
        seen.append(y[0])
        return process.denoised(inputs["eps"], y, at, prior)

    process.backward(denoise, noise, prior[None], [t, t - 1])
    close(seen[1], g[f"step{t}.y_prev"], tolerance)
    close(seen[1], g[f"step{t}.y_prev_float32_run"], 5e-4)


def test_g1_the_last_step_gives_the_clean_label():
    g = golden("g1", torch.float64)
    found = drift(torch.float64).denoised(g["last.eps"], g["last.y_1"], 0, g["prior_mean"])
    close(found.label, g["last.y_0"], 1e-6)


def test_g1_mmd():
    g = golden("g1", torch.float64)
    close(mmd(g["mmd.x"], g["mmd.y"]), g["mmd.value"][0], 1e-6)
    close(mmd(g["mmd.x"], g["mmd.y"], torch.full((4,), 0.3)), g["mmd.value"][0], 1e-6)


def vector_denoiser(dtype):
    """The network of g2, and the context of its images."""
    w = weights("g2", dtype)
    context = ImageContext(16, 16).to(dtype).eval()
    context.image_projection = nn.Identity()
    context.image_norm.load_state_dict(norm(w, "image_bn"), strict=False)
    return with_weights(VectorDenoiser(3, 16, 1000), w, dtype), context


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 5e-6)])
@torch.no_grad()
def test_g2_denoiser(dtype, tolerance):
    g = golden("g2", dtype)
    denoiser, context = vector_denoiser(dtype)
    of_images = context(g["image_feature"])
    close(denoiser(g["guidance"], g["noisy"], g["t"], of_images), g["eps_eval"], tolerance)
    timesteps = g["t"].tolist()
    folded = denoiser.folded(timesteps)
    for row, t in enumerate(timesteps):
        one = slice(row, row + 1)
        found = folded(g["guidance"][one], g["noisy"][one], t, of_images[one])
        close(found, g["eps_eval"][one], tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@torch.no_grad()
def test_g2_sixty_steps_of_the_whole_schedule(dtype, tolerance):
    g, process = golden("g2", dtype), drift(dtype, "last")
    denoiser, context = vector_denoiser(dtype)
    of_images, prior = context(g["image_feature"]), g["guidance"]
    noise = torch.zeros(4, 1001, 3, dtype=dtype)  # of the four images, as draws of one
    noise[:, 1000] = g["loop.z_init"]
    for step, z in enumerate(g["loop.z"]):
        noise[:, 59 - step] = z
    seen = []

    def denoise(y, t):
        seen.append(y[0])
        return process.denoised(denoiser(prior, y[0], t, of_images), y, t, prior)

    last, _ = process.backward(denoise, noise, prior[None], process.timesteps(60))
    for ours, expected in zip([*seen, last[0]], g["loop.y"], strict=True):
        close(ours, expected, tolerance)
    close(torch.stack([*seen, last[0]]), g["loop.y_float32_run"], 1e-3)
    close(label_scores(last[0], MULTICLASS), g["loop.probabilities"], tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@torch.no_grad()
def test_h_image_encoder(dtype, tolerance):
    g, w = golden("h", dtype), weights("h", dtype)
    vit = timm.models.vision_transformer.VisionTransformer(
        **{"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0},
        **{"class_token": False, "global_pool": "avg", "fc_norm": False},
    )
    vit.norm = nn.Identity()  # the encoder has none after its blocks
    projection = {"weight": w.pop("proj_out.weight"), "bias": w.pop("proj_out.bias")}
    vit.load_state_dict(w | {"pos_embed": w["pos_embed"][:, 1:]})  # that of a class token is unused
    encoder = Backbone(TimmFeatures(vit), mean=[0.0] * 3, std=[1.0] * 3, image_size=224)
    encoder = encoder.to(dtype).eval()
    context = ImageContext(24, 16).to(dtype).eval()
    context.image_projection.load_state_dict(projection)
    close(encoder(g["image"]).coarse, g["token_map"], tolerance)
    features = context.image_projection(encoder.pooled(g["image"]))
    close(features, g["feature"], tolerance)
