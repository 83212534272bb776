"""Saving, loading, publishing and pickling the estimator."""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from ..engine import prediction_engine, usual_engine
from ..errors import InputError, ModelFileError
from ..hub import (
    DType,
    ModelCard,
    SavedModel,
    card_of_finetuned,
    check_repository,
    checked_card,
    load_model,
    locate,
    origin_of,
    push_folder,
    save_model,
)
from ..inference import Engine, FittedModel
from ..settings import undisturbed
from ..training import resolve_device
from .attributes import FittedAttributes
from .class_names import display_names
from .engines import kept
from .parameters import check_parameters


class Persistence(FittedAttributes):
    """Methods of the estimator that save, upload or load its model."""

    card_: ModelCard
    warm_start: bool
    _origin: ModelCard  # of the next model, if a fit starts from the loaded one

    @undisturbed
    def save_pretrained(
        self, path: str | Path, *, dtype: DType = "float32", card: ModelCard | None = None
    ) -> None:
        """Save the fitted estimator as ``config.json``, ``model.safetensors`` and ``README.md``.

        Code is not saved: a module passed as ``backbone`` must be passed again when loading, and
        so must parts of one's own (``parts``) and a transform passed as ``augment``, which is
        otherwise loaded as ``"auto"``. A dict
        of class weights is loaded as None, and a file passed as ``pretrained`` as False. The files
        are loaded once before they replace an earlier saved model, which an interrupted or
        refused save leaves as it was.

        Parameters
        ----------
        path : str or Path
            Target folder; it is created if it does not exist. ``~`` is the home folder.
        dtype : {"float32", "float16"}, default="float32"
            Data type of the weights in the file. Half precision halves the file size; compare the
            probabilities before you rely on it.
        card : ModelCard or None
            Contents of the model card: data, licence, use and test results; None: ``card_``, the
            current contents. A card in the folder that was written or edited by hand is kept.

        Raises
        ------
        InputError
            Nothing was written: a parameter, or the weights in half precision, cannot be saved so
            that they can be loaded; or the path is none, a file, or the folder of something else.
        NotFittedError
            There is no fitted model.
        """
        self._save(path, dtype=dtype, card=card)

    @undisturbed
    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        create_pr: bool = False,
        commit_message: str | None = None,
        token: str | bool | None = None,
        dtype: DType = "float32",
        card: ModelCard | None = None,
    ) -> str:
        """Upload the fitted estimator to the Hugging Face Hub, in one commit.

        Parameters
        ----------
        repo_id : str
            Repository, ``org/name``; it is created if it does not exist.
        private : bool, default=False
            Whether a new repository is private.
        create_pr : bool, default=False
            Whether to open a pull request instead of committing to the main branch.
        commit_message : str or None
            Message of the commit; None: a default message.
        token : str, bool or None
            Access token of the Hub; None: the one that ``hf auth login`` saved.
        dtype, card
            As in :meth:`save_pretrained`. A card on the Hub that was written or edited by hand is
            kept.

        Returns
        -------
        str
            URL of the commit, or of the pull request.

        Raises
        ------
        InputError
            As in :meth:`save_pretrained`; or ``repo_id`` is not a valid repository name.
        NotFittedError
            There is no fitted model.
        HubError
            The Hub cannot be reached or refuses the upload; or ``private=True`` for an existing
            public repository.
        """
        check_repository(repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), dtype=dtype, card=card, name=repo_id)
            return push_folder(
                Path(folder),
                repo_id,
                private=private,
                create_pr=create_pr,
                commit_message=commit_message,
                token=token,
                told=card is not None,
            )

    @classmethod
    @undisturbed
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        backbone: torch.nn.Module | None = None,
        augment: Any = None,
        parts: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a fitted estimator from a folder, by its short name, or from the Hugging Face Hub.

        Parameters
        ----------
        name : str or Path
            Model to load. Tried in this order: a folder that :meth:`save_pretrained` wrote; a short
            name listed by :func:`diffmic.list_pretrained`; a repository on the Hugging Face Hub,
            ``org/name`` or ``org/name@revision``. Only the last two may access the network, and
            only for files that are not in the cache.
        revision : str or None
            Branch, tag or commit of the repository.
        cache_dir : str, Path or None
            Cache folder for downloads; None: the default of huggingface_hub.
        token : str, bool or None
            Access token for private repositories; None: the one that ``hf auth login`` saved.
        local_files_only : bool, default=False
            Whether to avoid network access; ``HF_HUB_OFFLINE=1`` has the same effect.
        backbone : torch.nn.Module or None
            Module to use as the backbone; required if the model was fitted with a module instead
            of a named backbone, since code is not saved.
        augment : callable or None
            Transform to use as ``augment`` if the model was fitted with a custom one; required if
            its predictions average several test-time views. None: ``"auto"``.
        parts : dict or None
            Parts of your own with which the model was fitted, by the names of their fields, such as
            ``{"denoiser": MyDenoiser}``; code is not saved. Losses are only needed for further
            fits.
        device : str, default="auto"
            PyTorch device for predictions and further fits, as in the constructor.

        Returns
        -------
        DiffMICClassifier
            The loaded estimator.

        Raises
        ------
        ModelFileError
            There is no such model, or a file is missing, damaged or inconsistent.
        HubError
            The model cannot be downloaded; the message says what to do.
        InputError
            ``name``, ``revision`` or ``device`` cannot be used.
        """
        if not isinstance(name, (str, Path)):
            raise InputError(f"name is {name!r}; give the folder of a saved model, or its name.")
        folder, checksum = locate(
            name,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        target = resolve_device(device)
        saved = load_model(
            folder,
            defaults=cls()._parameters,
            backbone=backbone,
            augment=augment,
            parts={} if parts is None else parts,
            device=target,
            checksum=checksum,
        )
        try:
            check_parameters(saved.parameters)
        except InputError as reason:
            raise ModelFileError(
                f"The parameters of {str(folder)!r} cannot be used: {reason}"
            ) from reason
        estimator = cls._of(saved, device)
        told, weights = origin_of(name)
        estimator._origin = card_of_finetuned(
            told if revision is None else f"{told}@{revision}",
            saved.card,
            base_model=saved.card.base_model if weights is None else weights,
        )
        return estimator

    @classmethod
    def _of(cls, saved: SavedModel, device: str) -> Self:
        """Estimator with a loaded model."""
        # Names belong to the classes of the model: a fit on others is not to inherit them.
        estimator = cls(**{**saved.parameters, "device": device, "class_names": None})
        model = saved.model
        precision = saved.parameters["precision"]
        engine = prediction_engine(model.network, usual_engine(), precision=precision)
        estimator.model_ = model.with_engine(engine)
        estimator.card_ = saved.card
        return estimator

    def _save(
        self, folder: str | Path, *, dtype: DType, card: ModelCard | None, name: str | None = None
    ) -> None:
        """Save into a folder; the usage example in the card loads the model by ``name``."""
        model, parameters = self._fitted(), self._parameters
        check_parameters(parameters)
        told = self.card_
        if card is not None:
            origin = {n: getattr(told, n) for n in ("base_model", "started_from")}
            given = checked_card(card)
            told = replace(given, **{n: getattr(given, n) or text for n, text in origin.items()})
        model = replace(model, class_names=display_names(model, parameters["class_names"]))
        save_model(folder, SavedModel(model, parameters, told), dtype=dtype, name=name)
        self.card_ = told

    def _next_card(self) -> ModelCard:
        """Card of the model that a fit has made: it says which loaded model the fit began from."""
        if not self.warm_start:
            self._origin = ModelCard()
        card: ModelCard = vars(self).get("_origin", ModelCard())
        return card

    def __copy__(self) -> Self:
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle, with the network on the CPU so that it can be loaded without a GPU.

        The engine is not pickled but rebuilt when loading.
        """
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        model: FittedModel | None = state.get("model_")
        if model is not None:
            network = model.network
            if model.device.type != "cpu":
                network = copy.deepcopy(network).cpu()
            engine = Engine(network, kept(model.engine.kind))
            state["model_"] = replace(model, network=network, engine=engine)
        return state

    @undisturbed
    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state.get("model_")
        if model is not None:
            kind, precision = model.engine.kind, state["precision"]
            engine = prediction_engine(model.network, kind, precision=precision)
            state = {**state, "model_": model.with_engine(engine)}
        super().__setstate__(state)  # type: ignore[misc]
