"""The model card tells what was measured, and its code runs."""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard as HubCard
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier, InputError, ModelCard
from diffmic.hub.card import is_generated, sealed
from diffmic.inference import Calibration

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")

TOLD = ModelCard(
    summary="Tells stripes.",
    dataset="Stripes of 2026",
    dataset_url="https://example.org/stripes",
    license="apache-2.0",
    split="By the hour.",
    intended_use="Tests.",
    limits="Stripes alone.",
    n_test=12,
)


@pytest.fixture(scope="module")
def classifier():
    X, y = stripes(40)
    return DiffMICClassifier(**small(backbone="test_resnet", pretrained=False)).fit(X, y)


@pytest.fixture
def card(classifier, tmp_path):
    """Saves with what was told, and gives the text of the card."""

    def save(told=None):
        classifier_to_save = copy.deepcopy(classifier)
        classifier_to_save.save_pretrained(tmp_path / "model", card=told)
        return (tmp_path / "model" / "README.md").read_text()

    return save


def run_code(text):
    """What the code of a card leaves behind."""
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    found = {}
    exec(code, found)
    return found


def test_the_code_of_the_card_runs(card, tmp_path, monkeypatch):
    text = card()
    Image.fromarray(stripes(1)[0][0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    found = run_code(text)
    assert found["proba"].shape == found["prior"].shape == (1, 3)


def test_the_card_tells_what_was_told_and_measured(card, classifier):
    X, y = stripes(12, seed=5)
    scores = classifier.evaluate(X, y, n_bootstrap=20)
    text = card(replace(TOLD, test_scores=scores))
    for told in ("Tells stripes.", "By the hour.", "Tests.", "Stripes alone.", "12 images"):
        assert told in text
    assert "[Stripes of 2026](https://example.org/stripes)" in text
    assert scores.to_markdown() in text
    assert f"| negative log-likelihood | {scores.measured('prior', 'nll')} | " in text
    validation = classifier.validation_scores_
    row = " | ".join(
        f"{validation[name]['nll']:.3f}" for name in ("prior", "diffusion", "diffusion_alone")
    )
    assert f"| negative log-likelihood | {row} |\n" in text
    assert "| prior | diffusion | diffusion alone |" in text
    assert "Not a medical device" in text


def test_newer_metrics_replace_the_tables_of_an_older_report(card, classifier, tmp_path):
    report = classifier.evaluate(*stripes(12, seed=5), n_bootstrap=20)
    assert report.to_markdown() in card(replace(TOLD, test_scores=report))
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "model")
    assert loaded.card_.test_scores == {stage: dict(of) for stage, of in report.items()}
    loaded.save_pretrained(tmp_path / "same", card=replace(loaded.card_, summary="Other."))
    assert report.to_markdown() in (tmp_path / "same" / "README.md").read_text()
    newer = {"prior": {"auc": 0.4321}, "diffusion": {"auc": 0.8765}}
    loaded.save_pretrained(tmp_path / "new", card=replace(loaded.card_, test_scores=newer))
    text = (tmp_path / "new" / "README.md").read_text()
    assert "| macro AUC | 0.432 | 0.876 |" in text
    assert report.to_markdown() not in text


def test_the_number_of_test_images_is_that_of_the_report(card, classifier):
    report = classifier.evaluate(*stripes(12, seed=5), n_bootstrap=0)
    assert "Test part, 12 images:" in card(replace(TOLD, test_scores=report, n_test=None))


def test_the_card_says_plainly_what_it_knows_of_test_and_validation_part(card):
    text = card()
    assert "No metrics on a test part were given." in text
    assert "Cross-fitted: no image is measured by a calibration or threshold" in text


def test_the_hub_understands_the_cards_metadata(card, classifier):
    scores = classifier.evaluate(*stripes(12, seed=5), n_bootstrap=20)
    data = HubCard(card(replace(TOLD, test_scores=scores))).data
    assert data.library_name == "diffmic"
    assert data.pipeline_tag == "image-classification"
    assert data.license == "apache-2.0"
    assert data.model_name == "model"
    found = {(r.metric_name, r.metric_value) for r in data.eval_results}
    assert ("accuracy (prior)", round(scores["prior"]["accuracy"], 4)) in found
    assert ("macro F1 (diffusion)", round(scores["diffusion"]["macro_f1"], 4)) in found
    assert {(r.dataset_name, r.dataset_split) for r in data.eval_results} == {
        ("Stripes of 2026", "test")
    }


def test_without_test_metrics_the_metadata_claims_none(card):
    assert HubCard(card()).data.eval_results is None


@pytest.mark.parametrize(
    ("pretrained", "named"), [(True, "timm/test_resnet.r160_in1k"), (False, None), ("a.pth", None)]
)
def test_the_base_model_is_named_where_the_training_began_with_its_weights(
    classifier, tmp_path, pretrained, named
):
    begun = copy.deepcopy(classifier).set_params(pretrained=pretrained)
    begun.save_pretrained(tmp_path / "first")
    DiffMICClassifier.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for folder in ("first", "second"):
        assert HubCard.load(tmp_path / folder / "README.md").data.base_model == named


def test_weights_from_elsewhere_on_the_hub_are_named_as_such(classifier, tmp_path):
    begun = copy.deepcopy(classifier).set_params(pretrained=True)
    cfg = begun.network_.prior.backbone.net.model.pretrained_cfg
    begun.network_.prior.backbone.net.model.pretrained_cfg = cfg | {"hf_hub_id": "someone/tuned"}
    begun.save_pretrained(tmp_path / "first")
    DiffMICClassifier.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert HubCard.load(tmp_path / "second" / "README.md").data.base_model == "someone/tuned"


def test_what_the_card_told_survives_loading(classifier, tmp_path):
    told = replace(TOLD, test_scores={"prior": {"auc": math.nan}, "diffusion": {"auc": 0.5}})
    classifier.save_pretrained(tmp_path / "first", card=told)
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "first")
    assert loaded.card_.summary == told.summary
    assert math.isnan(loaded.card_.test_scores["prior"]["auc"])
    loaded.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / n / "README.md").read_text() for n in ("first", "second"))
    assert "By the hour." in second
    assert "| macro AUC | nan | 0.500 |" in first


def test_multilabel_models_and_models_without_validation_have_cards(tmp_path):
    X, y = stripes(40)
    parameters = small(backbone="test_resnet", pretrained=False, validation_fraction=None)
    clf = DiffMICClassifier(**parameters).fit(X, (y[:, None] == [0, 1, 2]).astype(int))
    clf.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "3 labels" in text
    assert "There are no cross-fitted metrics on a validation part." in text
    assert "No metrics on a test part were given." in text
    assert "Probabilities are not calibrated" in text
    assert "calibrated on the validation part" not in text


def test_a_card_of_a_prior_alone_shows_code_for_the_prior(classifier, tmp_path, monkeypatch):
    stopped = copy.deepcopy(classifier)
    prior = {"prior": stopped.calibrations_["prior"]}
    stopped.model_ = replace(stopped.model_, calibrations=prior)
    stopped.save_pretrained(tmp_path / "model")
    Image.fromarray(stripes(1)[0][0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    found = run_code((tmp_path / "model" / "README.md").read_text())
    assert found["proba"].shape == (1, 3)


@pytest.mark.parametrize("name", ["b\nprint('INJECTED')", "```", "a|b", "$size", "---"])
def test_names_of_classes_stay_names(classifier, tmp_path, monkeypatch, capsys, name):
    named = copy.deepcopy(classifier).set_params(class_names=["a", name, "c"])
    folder = tmp_path / 'we"ird'
    named.save_pretrained(folder)
    Image.fromarray(stripes(1)[0][0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    assert run_code((folder / "README.md").read_text())["proba"].shape == (1, 3)
    assert "INJECTED" not in capsys.readouterr().out


def test_the_metadata_hold_plain_numbers_whatever_was_measured_with(card, classifier):
    scores = {
        stage: {"accuracy": np.float64(0.5), "auc": math.nan, "nll": np.float32(0.25)}
        for stage in ("prior", "diffusion")
    }
    data = HubCard(card(replace(TOLD, test_scores=scores, n_test=np.int64(12)))).data
    assert {(r.metric_type, r.metric_value) for r in data.eval_results} == {
        ("accuracy", 0.5),
        ("nll", 0.25),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"test_scores": {"diffusion": {"accuracy": 0.5}}},
        {"test_scores": None},
        {"test_scores": {"prior": {"nll": math.inf}, "diffusion": {"nll": 0.5}}},
        {"n_test": "many"},
        {"summary": None},
        {"license": 3},
    ],
    ids=str,
)
def test_a_card_with_values_of_another_kind_is_refused(classifier, tmp_path, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} of the card is"):
        classifier.save_pretrained(tmp_path, card=replace(TOLD, **wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["", " ", "x"])
def test_a_seal_breaks_with_any_change(change):
    text = sealed("one\n<!-- two -->\nthree")
    assert is_generated(text)
    assert is_generated(text.replace("two", "two" + change)) == (change == "")
    assert is_generated(text + change) == (change == "")
    assert not is_generated("one")


def test_a_card_of_another_kind_is_refused(classifier, tmp_path):
    with pytest.raises(InputError, match=r"card is dict; give a diffmic\.ModelCard"):
        classifier.save_pretrained(tmp_path, card={"summary": "stripes"})


def test_a_diffusion_without_weight_is_said_to_have_none(fitted, tmp_path):
    clf = copy.copy(fitted)
    calibrations = {**clf.calibrations_, "diffusion": Calibration(1e6, 0.0, 1.1)}
    clf.model_ = replace(clf.model_, calibrations=calibrations)
    clf.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "calibration gives its scores no weight" in text
    assert "1000000" not in text


@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_a_card_tells_what_is_known_of_each_label(indicators, tmp_path):
    X, y = indicators
    y = np.where(np.arange(60)[:, None] % [3, 60] == 0, np.nan, y)
    clf = DiffMICClassifier(**small(max_epochs=1, class_names=["up | down", "across"]))
    clf.fit(X, y).save_pretrained(tmp_path)
    counts = clf.label_counts_["training"]
    rows = zip(*counts.values(), strict=True)
    card = (tmp_path / "README.md").read_text()
    for name, row in zip(("up / down", "across"), rows, strict=True):
        assert f"\n| {name} | {' | '.join(map(str, row))} |\n" in card
    clf.fit(X, np.nan_to_num(y)).save_pretrained(tmp_path)
    assert "unknown" not in (tmp_path / "README.md").read_text()
