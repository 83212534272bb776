"""What the page answers, without gradio: its HTML, its errors, other class shares."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.app import write_space
from diffmic.app.finding import examine, probabilities, shares_with
from diffmic.app.page import HINT, Page, _examples, percent_of

NAMES = ["across <b>", "along", "plain"]


@pytest.fixture(scope="module")
def clf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        return DiffMICClassifier(**small(class_names=NAMES)).fit(*stripes(60))


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "a photo.png"
    Image.fromarray(stripes(3)[0][0]).save(file)
    return str(file)


def test_a_finding_is_what_the_estimator_says(clf, image):
    found = examine(clf, image)
    proba = probabilities(clf.model_, found.evidence)
    np.testing.assert_allclose(proba["diffusion"], clf.predict_proba([image])[0])
    np.testing.assert_allclose(proba["prior"], clf.predict_proba([image], stage="prior")[0])
    doubt, explained = clf.predict_uncertainty([image]), clf.explain([image])
    np.testing.assert_allclose(found.uncertainty.interval_width, doubt.interval_width)
    np.testing.assert_allclose(found.uncertainty.farther, doubt.farther)
    for name in ("saliency", "boxes", "noisy_maps", "clean_maps"):
        expected = getattr(explained, name)
        np.testing.assert_allclose(getattr(found.explanation, name), expected, atol=1e-6)


def test_the_page_shows_probabilities_doubt_image_and_each_step(clf, image):
    page = Page(clf)
    evidence, table, doubt, parts = page.show(image, None, None)
    chosen = NAMES[int(clf.predict_proba([image])[0].argmax())]
    assert f'Predicted: <span class="dm-told">{chosen.replace("<b>", "&lt;b&gt;")}' in table
    assert "diffusion" in table
    assert "prior" in table
    assert "<b>" not in table + parts
    assert "95 % of 32 draws" in doubt
    assert "held-out images" in doubt
    assert parts.count('data-part="step"') == clf.num_steps
    assert parts.count("<rect") == len(clf.explain([image]).boxes[0])
    assert len(evidence) == 1


@pytest.mark.parametrize("given", [None, "50", float("nan"), True, 0, 100, [50]])
def test_a_share_that_is_none_is_refused_with_what_to_give(given):
    assert percent_of(50) == 50.0
    with pytest.raises(InputError, match=r"The share is .*; give a number of percent from 0.01 to"):
        percent_of(given)


def test_another_prevalence_gives_the_probabilities_of_the_estimator(clf, image):
    page = Page(clf)
    evidence, usual, *_ = page.show(image, "along", page.usual("along"))
    assert usual == page.probabilities(evidence, None, None)
    told = page.probabilities(evidence, "along", 90.0)
    assert told != usual
    shares = shares_with(clf.model_, 1, 0.9)
    assert shares.sum() == pytest.approx(1)
    expected = clf.predict_proba([image], prevalence=shares.tolist())[0]
    shown = [float(f) for f in re.findall(r">(?:[<>] )?([\d.]+) %</td>", told)][::2]
    np.testing.assert_allclose(shown, sorted(100 * expected, reverse=True), atol=0.1)
    assert page.show(image, "along", 90.0)[1] == told
    assert "between 0 and 100" in page.probabilities(evidence, "along", 100)


def test_a_bad_file_is_told_in_a_line_without_the_folder_of_the_server(clf, tmp_path):
    page = Page(clf)
    for content, name in (
        (b"no image", "letter.txt"),
        (b"", "empty.png"),
        (b"\x89PNG cut", "a.dcm"),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        evidence, told, doubt, parts = page.show(str(file), None, None)
        assert evidence is None
        assert doubt == parts == ""
        assert 'role="alert"' in told
        assert name in told
        assert str(tmp_path) not in told
    assert "gone.png" in page.show(str(tmp_path / "gone.png"), None, None)[1]
    assert page.show(None, "along", 50)[1] == page.probabilities(None, "along", 50) == HINT


def test_what_was_not_foreseen_is_told_without_its_message(clf, image, monkeypatch, capsys):
    secret = "name of " + "a patient"

    def fails(*_):
        raise RuntimeError(secret)

    monkeypatch.setattr("diffmic.app.page.examine", fails)
    told = Page(clf).show(image, None, None)[1]
    assert "RuntimeError" in told
    assert secret not in told + capsys.readouterr().err


def test_warnings_about_an_image_are_notes_on_the_page(clf, tmp_path):
    file = tmp_path / "clear.png"
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16] = 255
    Image.fromarray(pixels).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "transparent pixels" in Page(clf).show(str(file), None, None)[2]


def test_multi_label_and_models_without_a_diffusion_stage(image):
    X, y = stripes(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        labels = DiffMICClassifier(**small(class_names=NAMES)).fit(X, np.eye(3, dtype=int)[y])
    page = Page(labels)
    evidence, table, doubt, _ = page.show(image, None, None)
    assert "Predicted" in table
    assert doubt.count("percentage points") == 3
    other = page.probabilities(evidence, "plain", 90.0)
    expected = labels.predict_proba([image], prevalence={2: 0.9})[0].max()
    assert f"{100 * expected:.1f} %" in other or "99.9 %" in other
    model = labels.model_
    prior = {"prior": model.calibrations["prior"]}
    object.__setattr__(model, "calibrations", prior)  # as of a fit that ended before stage two
    _, table, doubt, parts = Page(labels).show(image, None, None)
    assert "diffusion" not in table
    assert "no diffusion stage" in doubt
    assert 'data-part="step"' not in parts


def test_examples_are_the_images_of_a_folder(clf, image, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    page = Page(clf, _examples(tmp_path))
    assert list(page.examples) == ["a photo.png"]
    assert page.choose("a photo.png", None, None)[1] == page.show(image, None, None)[1]
    assert page.choose("../other.png", None, None)[1] == HINT
    (tmp_path / "none").mkdir()
    for folder in ("none", "missing"):
        with pytest.raises(InputError, match=r"folder|no images"):
            _examples(tmp_path / folder)


def test_a_space_holds_the_model_and_names_what_it_needs(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        clf = DiffMICClassifier(**small(backbone="test_resnet", pretrained=False)).fit(*stripes(60))
    clf.save_pretrained(tmp_path / "eyes")
    monkeypatch.setattr("diffmic.app.space.metadata.version", lambda _: "6.31.0")
    written = write_space(str(tmp_path / "eyes"), tmp_path / "space", clf)
    assert {"README.md", "app.py", "requirements.txt", "config.json"} <= {f.name for f in written}
    app = (tmp_path / "space" / "app.py").read_text()
    assert 'launch("model")' in app
    compile(app, "app.py", "exec")
    head = (tmp_path / "space" / "README.md").read_text().split("---")[1]
    assert "sdk: gradio\nsdk_version: 6.31.0\n" in head
    assert (tmp_path / "space" / "model" / "model.safetensors").exists()
    with pytest.raises(InputError, match="not empty"):
        write_space(str(tmp_path / "eyes"), tmp_path / "space", clf)
    write_space("diffmic-v2-aptos", tmp_path / "bundled", clf)
    assert 'launch("diffmic-v2-aptos")' in (tmp_path / "bundled" / "app.py").read_text()
    assert not (tmp_path / "bundled" / "model").exists()
    write_space("group/eyes", tmp_path / "hub", clf)
    assert "models:\n- group/eyes\n" in (tmp_path / "hub" / "README.md").read_text()
