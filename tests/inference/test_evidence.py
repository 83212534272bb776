"""Evidence: of streams as they come, by exact convolutions, of the training population."""

import copy
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader, IterableDataset

from diffmic import InputError
from diffmic.data import PreparedImages, read_inputs
from diffmic.estimator.prediction import conditions_for
from diffmic.inference import Engine, Evidence, SamplingOptions, encode_images
from diffmic.inference.engine import exact_convolutions
from diffmic.inference.evidence import of_training_population
from diffmic.tasks import MULTICLASS

CUDA = torch.device("cuda")
CONV = getattr(torch.backends.cudnn, "conv", None)


class Images(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return ((torch.from_numpy(image)[None], 0) for image in self.images)


@pytest.mark.parametrize(
    "form", [Images, lambda X: DataLoader(Images(X), batch_size=7)], ids=["stream", "loader"]
)
def test_a_stream_is_answered_like_an_array(fitted, new_images, form):
    X = new_images[0]
    stream = form(X)
    assert_allclose(fitted.predict_proba(stream), fitted.predict_proba(X), atol=1e-6)
    assert_array_equal(fitted.predict(stream), fitted.predict(X))
    assert_allclose(fitted.transform(stream), fitted.transform(X), atol=1e-6)
    assert_array_equal(fitted.explain(stream).boxes, fitted.explain(X).boxes)


def test_workers_of_the_estimator_do_not_read_a_stream_twice(fitted, new_images):
    X = new_images[0]
    with_workers = copy.copy(fitted).set_params(num_workers=2)
    assert_allclose(with_workers.predict_proba(Images(X)), fitted.predict_proba(X), atol=1e-6)


def test_a_stream_is_scored_with_the_targets_that_it_brings(fitted, new_images):
    X, y = new_images
    assert fitted.score(Images(X)) == fitted.score(X, np.zeros_like(y))
    assert fitted.score(Images(X), y) == fitted.score(X, y)


@pytest.mark.parametrize("wrap", [lambda X: X, lambda X: DataLoader(X, batch_size=5)])
def test_a_stream_without_end_is_answered_batch_by_batch(fitted, new_images, wrap):
    n_read = 0

    class Endless(IterableDataset):
        def __iter__(self):
            nonlocal n_read
            while True:
                n_read += 1
                assert n_read < 1000, "the stream was to be read as it is used"
                yield torch.from_numpy(new_images[0][n_read % 30])[None]

    batches = encoded(fitted, wrap(Endless()))
    for n_batches in (1, 2, 3):
        conditions, _ = next(batches)
        assert len(conditions) == fitted.batch_size
        assert n_read < n_batches * fitted.batch_size + 5


@pytest.fixture
def plain(fitted):
    """The fitted model, run by the network itself, so that hooks on it see what passes."""
    return copy.copy(fitted).compile("plain")


def encoded(clf, X):
    return conditions_for(clf.model_, clf.get_params(deep=False), X)


def flags():
    """All that says how convolutions are computed; no GPU is needed to ask."""
    cudnn = torch.backends.cudnn
    newer = () if CONV is None else (CONV.fp32_precision, cudnn.rnn.fp32_precision)
    return (
        *(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic),
        *(cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, *newer),
    )


def exact():
    """Whether convolutions on a GPU would be of float32 now."""
    if CONV is None:
        return not torch.backends.cudnn.allow_tf32
    return CONV.fp32_precision == "ieee"


def test_convolutions_on_a_gpu_are_exact_inside_and_as_before_afterwards():
    before = flags()
    assert not exact()
    with exact_convolutions(CUDA):
        assert exact()
        with exact_convolutions(CUDA):
            assert exact()
        assert exact()
    assert flags() == before
    with pytest.raises(KeyError), exact_convolutions(CUDA):
        raise KeyError
    assert flags() == before


def test_what_the_user_chose_for_convolutions_comes_back():
    before = flags()
    torch.backends.cudnn.allow_tf32 = False
    chosen = flags()
    try:
        with exact_convolutions(CUDA):
            pass
        assert flags() == chosen
    finally:
        torch.backends.cudnn.allow_tf32 = True
    assert flags() == before


def test_threads_do_not_leave_each_others_flags_behind():
    before = flags()
    both = threading.Barrier(2)

    def use():
        both.wait()
        for _ in range(200):
            with exact_convolutions(CUDA):
                assert exact()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flags() == before


def test_a_prediction_leaves_the_processs_flags_as_they_were(plain, new_images):
    before, seen = flags(), []
    hook = plain.network_.prior.register_forward_hook(lambda *_: seen.append(flags()))
    try:
        for _ in encoded(plain, new_images[0]):
            assert flags() == before  # between batches, too
    finally:
        hook.remove()
    assert seen == [before] * len(seen) != []  # on a CPU they do not matter, and stay
    assert flags() == before


def test_images_are_encoded_by_exact_convolutions(plain, new_images, monkeypatch):
    real = exact_convolutions
    monkeypatch.setattr("diffmic.inference.engine.exact_convolutions", lambda device: real(CUDA))
    seen = []
    hook = plain.network_.prior.register_forward_hook(lambda *_: seen.append(exact()))
    try:
        for _ in encoded(plain, new_images[0]):
            assert not exact()
    finally:
        hook.remove()
    assert seen == [True] * len(seen) != []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_encoding_is_that_of_float32_whatever_the_flag(fitted, new_images):
    network = copy.deepcopy(fitted.network_).to(CUDA).eval()
    images = PreparedImages(read_inputs(new_images[0]).images, 32)
    try:
        found = []
        for allowed in (True, False):
            torch.backends.cudnn.allow_tf32 = allowed
            ((conditions, _),) = encode_images(Engine(network), images, batch_size=30)
            found.append(conditions)
    finally:
        torch.backends.cudnn.allow_tf32 = True
    for name, value in vars(found[0]).items():
        assert torch.equal(value, getattr(found[1], name)), name


def test_scores_of_classes_drawn_more_often_are_those_of_the_training_population():
    """With Bayes' rule on both sides: the correction is exact where scores are posteriors."""
    rng = np.random.RandomState(0)
    likelihood = rng.rand(50, 4)
    shares, ratio = np.array([0.6, 0.25, 0.1, 0.05]), np.array([1.0, 2.0, 5.0, 9.0])

    def posterior(prior):
        joint = likelihood * prior
        return torch.from_numpy(joint / joint.sum(axis=1, keepdims=True))

    drawn = posterior(shares * ratio)
    found = of_training_population(drawn[:, None], torch.from_numpy(ratio))
    torch.testing.assert_close(found[:, 0], posterior(shares))


def test_scores_below_zero_count_as_zero_in_the_training_population():
    found = of_training_population(torch.tensor([[0.8, -0.2, 0.4]]), torch.tensor([1.0, 1.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.0, 0.2]]))
    assert of_training_population(torch.zeros(1, 3), torch.ones(3)).isfinite().all()


def test_logits_of_the_diffusion_are_those_of_the_mean_over_draws():
    draws = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    evidence = Evidence(torch.zeros(1, 2), draws)
    expected = torch.tensor([[0.7, 0.3]]).double().log()
    torch.testing.assert_close(
        evidence.logits("diffusion", MULTICLASS), expected, rtol=1e-6, atol=0
    )


def test_evidence_of_batches_is_joined_and_cut():
    whole = Evidence(torch.randn(5, 3), torch.rand(5, 2, 3))
    joined = Evidence.cat([whole[:2], whole[2:]])
    assert torch.equal(joined.prior_logits, whole.prior_logits)
    assert torch.equal(joined.draws, whole.draws)
    alone = Evidence.cat([Evidence(torch.randn(2, 3))])
    assert alone.draws is None
    assert len(alone) == 2


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"n_draws": 1.5}, {"n_views": True}])
def test_sampling_options_are_whole_numbers(options):
    with pytest.raises(InputError, match="integer of at least 1"):
        SamplingOptions(**options)
