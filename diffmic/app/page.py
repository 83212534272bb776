"""The page itself, made of gradio's components."""

import html
import os
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conventions import IMAGE_SUFFIXES
from ..errors import DiffMICError, InputError
from ..estimator.doubt import N_DRAWS
from . import render
from .finding import (
    Finding,
    adjustable,
    decided,
    examine,
    plain_message,
    probabilities,
    shares_with,
)

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..inference import Evidence

_SHARES = 0.01, 99.99  # least and largest of the slider, in percent
KEPT = 60  # seconds for which the server keeps an uploaded file
NOT_A_DEVICE = (
    "<strong>Not a medical device.</strong> For research and teaching. Nothing here has been "
    "tested for diagnosis, and no person should be treated by what it says."
)
_UPLOADS: list[tempfile.TemporaryDirectory[str]] = []  # deleted when the process ends
HINT = '<p class="dm-hint">Choose an image: the prediction will stand here.</p>'
NO_SHARES = (
    '<p class="dm-hint">The prevalence cannot be changed: the class shares in training are not '
    "known, as the model was saved by an earlier version of diffmic.</p>"
)
# What a slider, a choice or a box shows of the parts of the page that have its name.
_SHOWING = """
element.addEventListener('input', event => {
  const control = event.target, name = control.dataset.shows;
  if (!name) return;
  const value = control.type === 'checkbox' && !control.checked ? '' : control.value;
  for (const part of element.querySelectorAll(`[data-part="${name}"]`))
    part.style.display = part.dataset.at === value ? '' : 'none';
});
"""


class Page:
    """What the page does with an image, for one model; all its answers are HTML.

    Parameters
    ----------
    clf : DiffMICClassifier
        Fitted estimator.
    examples : dict of str to Path
        Images that can be chosen, by the name that is shown.
    """

    def __init__(self, clf: "DiffMICClassifier", examples: dict[str, Path] | None = None) -> None:
        self.clf, self.examples = clf, examples or {}
        self.model, self.names = clf.model_, list(clf.class_names_)
        self.choices = adjustable(self.model)

    def show(
        self, file: str | None, label: str | None, percent: float | None
    ) -> tuple["Evidence | None", str, str, str]:
        """Evidence for later; probabilities, doubt, and image with label maps of a file."""
        if not file:
            return None, HINT, "", ""
        try:
            found = examine(self.clf, file)
        except (DiffMICError, OSError) as reason:
            return None, render.message(plain_message(reason, file)), "", ""
        except Exception as reason:  # never a trace for those who use the page
            traceback.print_tb(reason.__traceback__)  # without the message, which may hold data
            print(f"diffmic: {type(reason).__name__}", file=sys.stderr)
            told = f"The image could not be examined ({type(reason).__name__})."
            return None, render.message(told), "", ""
        table = self.probabilities(found.evidence, label, percent)
        return found.evidence, table, *self._parts(found)

    def choose(
        self, example: str | None, label: str | None, percent: float | None
    ) -> tuple["Evidence | None", str, str, str]:
        """As :meth:`show`, for an image that was chosen by its name."""
        file = self.examples.get(example or "")
        return self.show(None if file is None else str(file), label, percent)

    def probabilities(
        self, evidence: "Evidence | None", label: str | None, percent: float | None
    ) -> str:
        """Probabilities in a population in which a class has a share, in percent."""
        if evidence is None:
            return HINT
        shares, told = None, ""
        usual = self.usual(label)
        if label in self.names and percent is not None and usual is not None:
            if not 0 < percent < 100:
                return render.message("A share lies between 0 and 100 %.")
            if abs(percent - usual) > 0.005:
                shares = shares_with(self.model, self.names.index(label), percent / 100)
                told = f"If {percent:g} % have {label}; in training, {usual:g} % had it."
        proba = probabilities(self.model, evidence, shares)
        chosen = decided(self.model, proba[self.model.main_stage], shares)
        ordered = self.model.task.name == "ordinal"
        return render.probability_table(proba, self.names, chosen, ordered=ordered, population=told)

    def usual(self, label: str | None) -> float | None:
        """Share of a class in training, in percent; None: it is not known."""
        if label not in self.names or self.names.index(label) not in self.choices:
            return None
        assert self.model.shares is not None
        return round(100 * float(self.model.shares[self.names.index(label)]), 2)

    def _parts(self, found: Finding) -> tuple[str, str]:
        proba = probabilities(self.model, found.evidence)[self.model.main_stage]
        image = render.picture(found, self.names, proba)
        maps = render.label_maps(found.explanation, self.names, proba)
        doubt = render.doubt_table(found.uncertainty, self.names, N_DRAWS)
        if maps:
            maps = f"<h3>How its label was denoised</h3>{maps}"
        notes = "".join(render.message(note, "note") for note in found.notes)
        return f"{notes}<h3>Doubt</h3>{doubt}", f"<h3>Where it looked</h3>{image}{maps}"


def make_page(
    clf: "DiffMICClassifier", *, title: str = "diffmic", examples: str | Path | None = None
) -> Any:
    """Page of a model, as ``gradio.Blocks`` that have not been launched.

    Parameters
    ----------
    clf : DiffMICClassifier
        Fitted estimator.
    title : str
        Name of the model, in the heading.
    examples : str, Path or None
        Folder of images that can be chosen on the page.

    Raises
    ------
    DiffMICError, InputError
        gradio is not installed; the folder holds no images.
    """
    gradio = _gradio()
    page = Page(clf, _examples(examples))
    card, names = clf.card_, page.names
    head = f"<h1>{html.escape(title)}</h1>"
    head += f"<p>{html.escape(card.summary)}</p>" if card.summary else ""
    head += f'<p class="dm-note" role="note">{NOT_A_DEVICE}</p>'
    how: dict[str, Any] = {"elem_classes": "dm", "js_on_load": _SHOWING}
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(10, KEPT)) as blocks:
        evidence = gradio.State(None)
        gradio.HTML(head, elem_classes="dm dm-head")
        with gradio.Row():
            with gradio.Column(min_width=300):
                file = gradio.File(label="Image: PNG, JPEG, TIFF, DICOM", height=150)
                example = gradio.Dropdown(
                    list(page.examples),
                    value=None,
                    label="Or one of these",
                    visible=bool(page.examples),
                )
                table = gradio.HTML(HINT, **how)
                shown = [names[i] for i in page.choices]
                first = shown[-1] if shown else None
                with gradio.Group(visible=bool(shown)):
                    label = gradio.Dropdown(
                        shown, value=first, label="Prevalence among those who are examined: class"
                    )
                    share = gradio.Slider(
                        *_SHARES, page.usual(first) or 50, step=0.01, label="Its share in %"
                    )
                    share.preprocess = partial(_read_share, gradio.Error)
                if not shown:
                    gradio.HTML(NO_SHARES, elem_classes="dm")
                doubt = gradio.HTML(**how)
            with gradio.Column(min_width=300):
                image = gradio.HTML(**how)
        gradio.HTML(
            f"<p>An uploaded file is deleted after about {KEPT} seconds. Nothing else is kept.</p>",
            elem_classes="dm",
        )
        population, results = [label, share], [evidence, table, doubt, image]
        one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        gradio.on(
            [file.upload, file.clear],
            page.show,
            [file, *population],
            results,
            api_name="examine",
            **one,
        )
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        example.input(page.choose, [example, *population], results, api_visibility="private", **one)
        moved = {"fn": page.probabilities, "inputs": [evidence, *population], "outputs": table}
        share.input(**moved, trigger_mode="always_last", **quiet)
        label.input(page.usual, label, share, **quiet).then(**moved, **quiet)
    return blocks


def launch(
    model: "str | Path | DiffMICClassifier",
    *,
    examples: str | Path | None = None,
    host: str | None = None,
    port: int | None = None,
    max_file_size: str = "20mb",
    device: str = "auto",
    open_browser: bool = False,
    wait: bool = True,
) -> Any:
    """Serve the page of a model, by default to this computer alone, until it is interrupted.

    Uploads lie in a temporary folder (or in ``GRADIO_TEMP_DIR``, if that is set), which is deleted
    when the process ends; each file is deleted after a minute.

    Parameters
    ----------
    model : str, Path or DiffMICClassifier
        Fitted estimator, or what ``DiffMICClassifier.from_pretrained`` loads.
    examples : str, Path or None
        Folder of images that can be chosen on the page.
    host : str or None
        Address to listen at; None: 127.0.0.1, or ``GRADIO_SERVER_NAME``, which Spaces set.
    port : int or None
        Port; None: the first that is free from 7860.
    max_file_size : str
        Largest upload, such as ``"20mb"``.
    device : str
        Device of a model that is loaded.
    open_browser : bool
        Whether a browser is opened.
    wait : bool
        Whether to wait until the page is closed or interrupted.

    Returns
    -------
    gradio.Blocks
        The page; ``close()`` ends it, where ``wait`` is False.

    Raises
    ------
    DiffMICError, InputError, OSError
        gradio is not installed; the model or the folder cannot be read; the port is taken.
    """
    from ..classifier import DiffMICClassifier

    gradio = _gradio()
    if isinstance(model, DiffMICClassifier):
        clf, title = model, "diffmic"
    else:
        clf, title = DiffMICClassifier.from_pretrained(str(model), device=device), str(model)
        clf.set_params(verbose=0)
    if "GRADIO_TEMP_DIR" not in os.environ:  # which gradio asks for at every upload
        _UPLOADS.append(tempfile.TemporaryDirectory(prefix="diffmic-page-"))
        os.environ["GRADIO_TEMP_DIR"] = _UPLOADS[-1].name
    blocks = make_page(clf, title=Path(title).name, examples=examples)
    blocks.launch(
        server_name=host,
        server_port=port,
        max_file_size=max_file_size,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        quiet=True,
        footer_links=[],
        css_paths=Path(__file__).with_name("page.css"),
        theme=gradio.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
    )
    if wait:
        print(f"{title}: {blocks.local_url} (Ctrl+C ends it)", flush=True)
        try:
            blocks.block_thread()
        finally:
            blocks.close(verbose=False)
    return blocks


def percent_of(value: Any) -> float:
    """A share in percent, as the slider gives it, or whoever calls the page's API."""
    low, high = _SHARES
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"The share is {value!r}; give a number of percent from {low} to {high}.")
    return float(value)


def _read_share(error: Any, value: Any) -> float:
    """The share; ``error`` is what gradio tells the caller without a trace."""
    try:
        return percent_of(value)
    except InputError as reason:
        raise error(str(reason), print_exception=False) from None


def _examples(folder: str | Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is no folder of examples.")
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{str(root)!r} holds no images that could be examples.")
    return {path.name: path for path in found}


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when it is imported
    try:
        import gradio
    except ImportError as reason:
        raise DiffMICError("The page needs gradio: pip install 'diffmic[app]'.") from reason
    return gradio
