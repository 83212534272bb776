"""The estimator: DiffMICClassifier."""

import copy
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .data import (
    LabelledImages,
    PreparedImages,
    PreparedStream,
    Stream,
    TargetEncoding,
    TrainingData,
    named_augment,
    read_inputs,
    read_training_data,
)
from .data.preprocessing import Augment
from .data.training_data import read_labelled
from .errors import DiffMICWarning, InputError
from .hub import (
    FITTED,
    DType,
    ModelCard,
    SavedModel,
    check_repository,
    checked_card,
    load_model,
    locate,
    push_folder,
    save_model,
)
from .inference import (
    STAGES,
    Calibration,
    Explanation,
    Stage,
    encode_images,
    explain,
    inference_dtype,
    measure,
    over_views,
    sample_scores,
)
from .model import (
    Architecture,
    Conditions,
    DiffMICNetwork,
    architecture_from,
    build_network,
    carry_over,
    default_image_size,
)
from .parameters import check_n_views, check_num_steps, check_parameters, check_whole
from .presets import preset_parameters
from .random import draw_seed, seeded_rng
from .training import (
    FitResult,
    Part,
    Recipe,
    TrainingOptions,
    fit_network,
    resolve_device,
    resolve_recipe,
)


class DiffMICClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Medical image classifier that denoises label maps by diffusion (DiffMIC-v2).

    A prior of two granularities, the whole image and its most salient regions, guides the
    denoising of a small label map; the mean of the map, calibrated on held-out images, gives
    probabilities. The prior alone is always there to compare with: ``stage="prior"``.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tf_efficientnet_lite0"
        Name of a timm model, or a module that maps images (B, 3, H, W) to a feature map
        (B, D, h, w). Encodes the image; also gives the saliency, unless ``prior_backbone`` does.
    pretrained : bool, str or Path, default=True
        Whether named backbones start from pretrained weights; or a file of weights of
        ``backbone``. If they cannot be had, ``fit`` raises ``PretrainedWeightsError``.
    prior_backbone : str, torch.nn.Module or None, default=None
        A network of its own for the saliency of the whole image, as in the paper.
    region_backbone : str, torch.nn.Module or None, default=None
        Network for crops of pixels, as in the paper. None: regions are windows of the finer
        feature map of the saliency's backbone, which costs almost nothing.
    n_regions : int or "auto", default="auto"
        K, the number of regions and the side of the label map. Auto: 6, or as many as fit.
    region_size : int or "auto", default="auto"
        Side of a region, in pixels of the network's input. Auto: one cell of the saliency map,
        which is 32 pixels for most backbones.
    image_size : int or "auto", default="auto"
        Images are resized to squares of this side, in pixels. Auto: the longer side of the first
        image, at most 224; or what the backbone is made for.
    feature_dim : int, default=256
        F, the width of the denoiser.
    num_train_timesteps : int, default=1000
        T, the length of the noise schedule.
    num_steps : int, default=10
        Steps of the sampler when predicting.
    n_samples : int, default=8
        Draws whose scores are averaged when predicting.
    n_views : int, default=1
        Views of an image whose scores are averaged when predicting: the image itself, then as
        ``augment`` changes it, every image alike. Each costs as much as a prediction of one view,
        and augmenting on the CPU. (The recipe's ``n_views`` are those that stage two learns on,
        beside the image itself.)
    recipe : str or Recipe, default="default"
        How the stages learn: ``"default"``, ``"paper-v2"``, or a ``diffmic.training.Recipe``.
    max_epochs : int, default=20
        Passes over the images in stage one; stage two scales with it.
    batch_size : int, default=32
        Images a step, training and predicting. A DataLoader's own wins while training.
    learning_rate : float, default=1e-3
        Peak learning rate of stage one (AdamW); the recipe says how parts differ.
    validation_fraction : float or None, default=0.15
        Share of the images that is set aside for early stopping and calibration, unless ``fit``
        gets ``validation_data``. None: no such part; probabilities are then not calibrated.
    early_stopping : bool, default=True
        Stop the prior when it no longer gains on the validation part, and keep its best epoch. So
        it is for the denoiser of a recipe that does not average its weights; the default does.
    n_iter_no_change : int, default=10
        Epochs without gain after which to stop.
    class_weight : None, "balanced" or dict, default=None
        Weights of classes in the losses and in the calibration, keys as in y.
    augment : "auto", "rotations", None or callable, default="auto"
        Random changes to training images, and to views when predicting. Auto: shifts, small
        rotations, flips from left to right. Rotations: any, and flips up and down, for images
        without an upright direction (skin, fundus, cells). None: none. Or a
        ``torchvision.transforms.v2`` transform of tensors (3, S, S).
    class_names : sequence of str or None, default=None
        Words for people, in the order of ``classes_``.
    warm_start : bool, default=False
        Go on from the fitted network. With other classes the backbones are kept, heads are new.
    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        Auto: training in what the processor is fast with, predictions in fp32. Named: both; when
        predicting, the wide layers of the denoiser and encoders beside the prior's, as the paper's
        arrangement has them, so that probabilities hardly change.
    device : str, default="auto"
        Where to compute; auto: a GPU where there is one.
    num_workers : int, default=0
        Processes that read images.
    random_state : int, RandomState or None, default=None
        The same integer gives the same model and the same probabilities on the same machine.
    verbose : int, default=1
        0: silent. 1: progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        The labels, as they were passed; for multi-label the numbers of the columns.
    multilabel_ : bool
        Whether y was an indicator matrix.
    network_ : DiffMICNetwork
        The trained network.
    image_size_ : int
        Side of the network's input, in pixels.
    channels_ : int
        Channels of the images of the fit: 1 or 3. It tells a single colour image from a batch of
        gray ones; gray and colour images can both be predicted.
    calibrations_ : dict of str to Calibration
        From scores to probabilities, for each stage.
    thresholds_ : dict of str to ndarray of shape (L,)
        Multi-label: from which probability ``predict`` calls a label present, for each stage.
    validation_scores_ : dict of str to dict of str to float
        Measures on the validation part, for each stage: prior and diffusion side by side.
    history_ : list of dict
        A row per epoch of each stage: losses, validation measures, seconds.
    versions_ : dict of str to str
        Of the packages that the fit was made with.
    card_ : ModelCard
        What the model card tells beside what the model knows; set when saving.
    seed_ : int
        What ``random_state`` gave.

    References
    ----------
    Yang et al., "DiffMIC-v2: Medical Image Classification via Improved Diffusion Network", IEEE
    Transactions on Medical Imaging, 2025, doi 10.1109/TMI.2025.3530399.

    Examples
    --------
    >>> from diffmic import DiffMICClassifier
    >>> from diffmic.datasets import make_lesions
    >>> X, y = make_lesions(60, image_size=64, random_state=0)
    >>> clf = DiffMICClassifier(
    ...     backbone="test_resnet", pretrained=False, max_epochs=1, random_state=0, verbose=0
    ... )
    >>> clf.fit(X, y).predict_proba(X[:2]).shape
    (2, 3)
    """

    def __init__(
        self,
        *,
        backbone: str | torch.nn.Module = "tf_efficientnet_lite0",
        pretrained: bool | str | Path = True,
        prior_backbone: str | torch.nn.Module | None = None,
        region_backbone: str | torch.nn.Module | None = None,
        n_regions: int | str = "auto",
        region_size: int | str = "auto",
        image_size: int | str = "auto",
        feature_dim: int = 256,
        num_train_timesteps: int = 1000,
        num_steps: int = 10,
        n_samples: int = 8,
        n_views: int = 1,
        recipe: str | Recipe = "default",
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        validation_fraction: float | None = 0.15,
        early_stopping: bool = True,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        augment: Any = "auto",
        class_names: Any = None,
        warm_start: bool = False,
        precision: str = "auto",
        device: str = "auto",
        num_workers: int = 0,
        random_state: Any = None,
        verbose: int = 1,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.prior_backbone = prior_backbone
        self.region_backbone = region_backbone
        self.n_regions = n_regions
        self.region_size = region_size
        self.image_size = image_size
        self.feature_dim = feature_dim
        self.num_train_timesteps = num_train_timesteps
        self.num_steps = num_steps
        self.n_samples = n_samples
        self.n_views = n_views
        self.recipe = recipe
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.augment = augment
        self.class_names = class_names
        self.warm_start = warm_start
        self.precision = precision
        self.device = device
        self.num_workers = num_workers
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """An unfitted estimator of a named arrangement.

        Parameters
        ----------
        name : {"default", "paper-v2"}
            ``"paper-v2"`` has the paper's four networks, crops and width.
        **overrides
            Constructor parameters that are to differ.
        """
        return cls(**{**preset_parameters(name), **overrides})

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        validation_data: Any = None,
    ) -> Self:
        """Learn from images: first the prior, then the denoiser, then the calibration of each.

        Parameters
        ----------
        X : array, tensor, list, Dataset or DataLoader
            Images as an array or tensor of shape (n, C, H, W), (n, H, W, C) or (n, H, W), uint8
            in 0–255 or float in 0–1; a list of paths, PIL images or arrays; a map-style Dataset of
            (image, target) or of dicts; or a DataLoader, whose ``dataset`` is read. An
            IterableDataset is walked through once and kept in memory: for more images than that
            holds give paths or a map-style Dataset.
        y : array-like of shape (n,), (n, 1) or (n, L)
            Integers or strings; an indicator matrix of 0 and 1 means multi-label. Not needed where
            X holds targets.
        sample_weight : array-like of shape (n,) or None
            Weight of each image in the losses.
        groups : array-like of shape (n,) or None
            Patient, lesion or the like: a group stays on one side of the validation split.
        validation_data : (X, y), Dataset, DataLoader or None
            Held-out images, in place of ``validation_fraction``.

        Returns
        -------
        DiffMICClassifier
            Itself.

        Raises
        ------
        InputError
            Images, targets or parameters that cannot be used, before any work is done.
        PretrainedWeightsError
            Pretrained weights were asked for and cannot be had.
        TrainingDivergedError
            The loss is not finite; the estimator keeps the last good state.
        """
        with ONE_FIT_AT_A_TIME:
            return self._fit(X, y, sample_weight, groups, validation_data)

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any, validation_data: Any) -> Self:
        parameters = self.get_params(deep=False)
        check_parameters(parameters)
        check_n_views(self.n_views, self.augment)
        recipe, device = resolve_recipe(self.recipe), resolve_device(self.device)
        seed = draw_seed(self.random_state)
        data = read_training_data(
            X,
            y,
            sample_weight=sample_weight,
            groups=groups,
            validation_data=validation_data,
            validation_fraction=self.validation_fraction,
            class_weight=self.class_weight,
            rng=np.random.RandomState(seed),
            verbose=self.verbose,
        )
        self._check_class_names(data.encoding)
        image_size = self._resolve_image_size(data)
        options = self._options(data, image_size, recipe, device, seed)
        training = _part(data.training)
        training.prepared(options, augmented=True)[0]  # what augment returns is checked right away
        network = self._build(data.encoding, image_size, recipe, seed)
        result = fit_network(
            network,
            training,
            None if data.validation is None else _part(data.validation),
            options,
            diffusion_trained=self._goes_on_with(data.encoding) and self.diffusion_trained_,
        )
        if result.stopped is not None and not result.history:
            raise result.stopped  # nothing was learnt: whatever was fitted before stays
        self.channels_ = data.image_shape[0]
        self.built_with_ = {name: parameters[name] for name in ARCHITECTURE_PARAMETERS}
        self._keep(network, data.encoding, image_size, seed, result)
        return self

    def predict_proba(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_samples: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
    ) -> NDArray[np.float64]:
        """Calibrated probabilities.

        Parameters
        ----------
        X : as in :meth:`fit`
            Targets, where X holds any, are ignored. A single image gives a single row. An
            IterableDataset, or a DataLoader of one, is read as it comes, whatever its length.
        num_steps, n_samples, n_views : int or None
            Steps of the sampler, draws and views to average; None: the estimator's own.
            Calibration and thresholds are of the ``n_views`` of the fit.
        stage : {"diffusion", "prior"}
            Whose probabilities: the denoised label map's, or the fused prior's alone.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to 1; for multi-label one probability per label. They do not depend on the
            batch size, the order of the images or their neighbours.
        """
        calibration = self._calibration(stage)
        return calibration(*self._evidence(X, stage, num_steps, n_samples, n_views)).numpy()

    def predict(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_samples: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
    ) -> NDArray[Any]:
        """The most probable class; for multi-label the labels that reach their threshold.

        Parameters are those of :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,) or (n, L)
            Labels as they were passed to :meth:`fit`, or an indicator matrix of 0 and 1.
        """
        proba = self.predict_proba(
            X, num_steps=num_steps, n_samples=n_samples, n_views=n_views, stage=stage
        )
        if self.multilabel_:
            return (proba >= self.thresholds_[stage]).astype(int)
        labels: NDArray[Any] = self.classes_[proba.argmax(axis=1)]
        return labels

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy; for multi-label the share of images with every label right.

        Parameters
        ----------
        X, y : as in :meth:`fit`
        sample_weight : array-like of shape (n,) or None
        """
        from sklearn.metrics import accuracy_score

        check_is_fitted(self)
        images, truth = read_labelled(X, y, known_channels=self.channels_)
        try:
            return float(accuracy_score(truth, self.predict(images), sample_weight=sample_weight))
        except ValueError as reason:
            raise InputError(
                f"y cannot be compared with the classes {self.classes_.tolist()[:20]}: {reason}"
            ) from reason

    def evaluate(
        self,
        X: Any,
        y: Any = None,
        *,
        ordered: bool = False,
        num_steps: int | None = None,
        n_samples: int | None = None,
        n_views: int | None = None,
    ) -> dict[Stage, dict[str, float]]:
        """Measures of both stages, side by side.

        Parameters
        ----------
        X, y : as in :meth:`fit`
        ordered : bool, default=False
            Whether classes are grades in the order of ``classes_``: quadratic kappa, too.
        num_steps, n_samples, n_views : int or None
            As in :meth:`predict_proba`.

        Returns
        -------
        dict of str to dict of str to float
            For ``"diffusion"`` and ``"prior"``: accuracy, balanced accuracy, macro F1, macro AUC,
            negative log-likelihood, Brier score and expected calibration error. Classes that X
            lacks are left out of the means that need them.
        """
        calibrations = {stage: self._calibration(stage) for stage in STAGES}
        images, truth = read_labelled(X, y, known_channels=self.channels_)
        scores, prior_logits = self._evidence(images, "diffusion", num_steps, n_samples, n_views)
        evidence = {"diffusion": (scores, prior_logits), "prior": (prior_logits,)}
        return {
            stage: measure(
                truth,
                calibrations[stage](*evidence[stage]).numpy(),
                classes=self.classes_,
                ordered=ordered,
                thresholds=self.thresholds_.get(stage, 0.5),
            )
            for stage in STAGES
        }

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings: the pooled features of the image encoder, shape (n, D); of one view."""
        check_is_fitted(self)
        features = [conditions.image_features.float().cpu() for conditions, _ in self._encode(X)]
        return torch.cat(features).numpy()

    def explain(self, X: Any) -> Explanation:
        """Where the prior looked, and what each of its granularities says of the image itself.

        Parameters
        ----------
        X : as in :meth:`fit`

        Returns
        -------
        Explanation
            ``saliency`` (n, C, H, W), ``boxes`` (n, K, 4) in pixels of the images as they were
            passed, ``attention`` (n, K), ``global_proba`` and ``local_proba`` (n, C).
        """
        check_is_fitted(self)
        conditions, sizes = zip(*self._encode(X), strict=True)
        return explain(
            Conditions.cat(conditions),
            torch.cat(sizes),
            image_size=self.image_size_,
            multilabel=self.multilabel_,
        )

    def save_pretrained(
        self, path: str | Path, *, dtype: DType = "float32", card: ModelCard | None = None
    ) -> None:
        """Save the fitted estimator as ``config.json``, ``model.safetensors`` and ``README.md``.

        Code is not saved: a module as the backbone must be given again when loading, a transform
        as ``augment`` comes back as ``"auto"``, class weights in a dict as None, and the file of
        ``pretrained`` as False. An interrupted save leaves an older one whole.

        Parameters
        ----------
        path : str or Path
            The folder; it is made where there is none.
        dtype : {"float32", "float16"}, default="float32"
            Of the weights in the file. Half precision takes half the space; look at what
            probabilities become before you rely on it.
        card : ModelCard or None
            What the model card tells of data, licence, use and test results; None: what was told
            before. A card that a person wrote or changed stays as it is.

        Raises
        ------
        InputError
            A parameter of the architecture was changed after the fit; weights that half precision
            cannot hold; more than one view by a transform of your own; no path, or that of a file.
        """
        self._save(path, dtype=dtype, card=card)

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
            The repository, ``org/name``; it is made where there is none.
        private : bool, default=False
            Whether a new repository is private.
        create_pr : bool, default=False
            Open a pull request instead of committing to the main branch.
        commit_message : str or None
        token : str, bool or None
            Of the Hub; None: the one that ``hf auth login`` saved.
        dtype, card
            As in :meth:`save_pretrained`. A card on the Hub that a person wrote or changed stays.

        Returns
        -------
        str
            Address of the commit, or of the pull request.

        Raises
        ------
        InputError
            As in :meth:`save_pretrained`; ``repo_id`` is no name of a repository.
        HubError
            The Hub cannot be reached, or does not allow it; ``private=True`` for a repository
            that is public.
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
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        backbone: torch.nn.Module | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a fitted estimator by its name.

        Parameters
        ----------
        name : str or Path
            A folder that :meth:`save_pretrained` wrote; or a short name, of which
            :func:`diffmic.list_pretrained` tells; or a repository on the Hugging Face Hub,
            ``org/name`` or ``org/name@revision``. In this order. Only the last two may ask the
            network, and only for what is not in the cache.
        revision : str or None
            Branch, tag or commit of the repository.
        cache_dir : str, Path or None
            Where downloads are kept; None: where huggingface_hub keeps them.
        token : str, bool or None
            For private repositories; None: the one that ``hf auth login`` saved.
        local_files_only : bool, default=False
            Do not ask the network; so it is with ``HF_HUB_OFFLINE=1``, too.
        backbone : torch.nn.Module or None
            Needed where the model was fitted with a module of the user's own as its backbone,
            since code is not saved.
        device : str, default="auto"
            Where to compute.

        Raises
        ------
        ModelFileError
            There is no such model; a missing, damaged or unfitting file.
        HubError
            The model cannot be downloaded; the message says what to do.
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
        defaults = cls().get_params(deep=False)
        model = load_model(
            folder, defaults=defaults, backbone=backbone, device=device, checksum=checksum
        )
        estimator = cls(**model.parameters)
        for field in FITTED:
            setattr(estimator, f"{field}_", getattr(model, field))
        estimator.built_with_ = {p: model.parameters[p] for p in ARCHITECTURE_PARAMETERS}
        return estimator

    def _save(
        self, folder: str | Path, *, dtype: DType, card: ModelCard | None, name: str | None = None
    ) -> None:
        """Save into a folder under the name that the card is to tell."""
        check_is_fitted(self)
        changed = [
            f"{name} is {getattr(self, name)!r} and was {value!r}"
            for name, value in self.built_with_.items()
            if getattr(self, name) is not value and getattr(self, name) != value
        ]
        if changed:
            raise InputError(
                f"Since the fit these were changed: {', '.join(changed)}. Set them back, or fit "
                "again."
            )
        if self.n_views > 1 and not isinstance(self.augment, str):
            raise InputError(
                f"n_views is {self.n_views}, and views are made by a transform of your own: code "
                "is not saved, and with other views the calibration would not fit. Fit with "
                "augment='auto' or 'rotations', or with n_views=1."
            )
        fitted = {field: getattr(self, f"{field}_") for field in FITTED}
        if card is not None:
            fitted["card"] = checked_card(card)
        model = SavedModel(parameters=self.get_params(deep=False), **fitted)
        save_model(folder, model, dtype=dtype, name=name)
        self.card_ = model.card

    def _check_class_names(self, encoding: TargetEncoding) -> None:
        names = None if self.class_names is None else list(self.class_names)
        if names is not None and len(names) != len(encoding.classes):
            raise InputError(
                f"class_names has {len(names)} names, but y holds "
                f"{len(encoding.classes)} classes: {encoding.classes.tolist()}."
            )

    @property
    def _going_on(self) -> bool:
        """Whether a fit starts from what the last one learnt."""
        return bool(self.warm_start) and hasattr(self, "network_")

    def _goes_on_with(self, encoding: TargetEncoding) -> bool:
        """Whether that holds for the heads, too: the classes are the same."""
        return (
            self._going_on
            and self.multilabel_ == encoding.multilabel
            and np.array_equal(self.classes_, encoding.classes)
        )

    def _resolve_image_size(self, data: TrainingData) -> int:
        if self.image_size != "auto":
            return int(self.image_size)
        if self._going_on:
            return int(self.image_size_)
        backbones = [b for b in (self.backbone, self.prior_backbone) if b is not None]
        longest_side = max(data.image_shape[1:])
        return max(default_image_size(backbone, longest_side) for backbone in backbones)

    def _build(
        self, encoding: TargetEncoding, image_size: int, recipe: Recipe, seed: int
    ) -> DiffMICNetwork:
        """A network for these classes; with ``warm_start`` it knows what the last one knew."""
        learnt = self.network_ if self._going_on else None
        architecture = architecture_from(
            self.get_params(deep=False),
            pretrained=self.pretrained if learnt is None else False,
            image_size=image_size,
            context_dropout=recipe.context_dropout,
        )
        with seeded_rng(seed):
            network = build_network(
                architecture,
                len(encoding.classes),
                multilabel=encoding.multilabel,
                settings=recipe.diffusion,
            )
        if learnt is not None:
            same = self._goes_on_with(encoding)
            carry_over(learnt, network, heads=same)
            if not same and np.isin(encoding.classes, self.classes_).any():
                warnings.warn(
                    f"warm_start: the classes are {encoding.classes.tolist()[:20]} and were "
                    f"{self.classes_.tolist()[:20]}, so that the backbone goes on and the heads "
                    "begin anew.",
                    DiffMICWarning,
                    stacklevel=4,
                )
        return network

    def _options(
        self,
        data: TrainingData,
        image_size: int,
        recipe: Recipe,
        device: torch.device,
        seed: int,
    ) -> TrainingOptions:
        named = isinstance(self.backbone, str) and bool(self.pretrained)
        return TrainingOptions(
            recipe=recipe,
            image_size=image_size,
            max_epochs=self.max_epochs,
            batch_size=data.batch_size or self.batch_size,
            learning_rate=self.learning_rate,
            pretrained=self._going_on or named,
            patience=self.n_iter_no_change if self.early_stopping else None,
            augment=self._augmentation,
            num_workers=self.num_workers if data.num_workers is None else data.num_workers,
            num_steps=self.num_steps,
            n_samples=self.n_samples,
            n_views=self.n_views,
            precision=self.precision,
            device=device,
            seed=seed,
            verbose=self.verbose,
        )

    def _keep(
        self,
        network: DiffMICNetwork,
        encoding: TargetEncoding,
        image_size: int,
        seed: int,
        result: FitResult,
    ) -> None:
        """The fitted attributes; then say what did not go as hoped."""
        self.network_ = network
        self.classes_ = encoding.classes
        self.multilabel_ = encoding.multilabel
        self.image_size_ = image_size
        self.seed_ = seed
        self.calibrations_ = result.calibrations
        self.thresholds_ = result.thresholds
        self.history_ = result.history
        self.validation_scores_ = result.validation_scores
        self.diffusion_trained_ = result.diffusion_trained
        self.versions_ = {package: version(package) for package in ("diffmic", "torch", "timm")}
        self.card_ = ModelCard()
        if result.stopped is not None:
            raise result.stopped
        if not result.validation_scores:
            warnings.warn(
                "There was no validation part, so probabilities are not calibrated (temperature 1) "
                "and it is not known whether diffusion gains on the prior. Pass validation_data, "
                "or set validation_fraction.",
                DiffMICWarning,
                stacklevel=4,
            )
            return
        prior, diffusion = (
            result.validation_scores[stage]["nll"] for stage in ("prior", "diffusion")
        )
        if diffusion > prior:
            warnings.warn(
                f"On the validation part the diffusion stage (negative log-likelihood "
                f"{diffusion:.3f}) is behind its prior ({prior:.3f}). See validation_scores_; "
                "predict_proba(X, stage='prior') gives the prior's probabilities.",
                DiffMICWarning,
                stacklevel=4,
            )

    def _calibration(self, stage: Stage) -> Calibration:
        check_is_fitted(self)
        if stage not in STAGES:
            raise InputError(f"stage is {stage!r}; give one of {STAGES}.")
        if stage == "diffusion" and not self.diffusion_trained_:
            raise NotFittedError(
                "Training stopped before the diffusion stage had learnt anything; "
                "stage='prior' gives the prior's answer, fit again for the diffusion's."
            )
        return self.calibrations_[stage]

    def _evidence(
        self,
        X: Any,
        stage: Stage,
        num_steps: int | None,
        n_samples: int | None,
        n_views: int | None,
    ) -> tuple[Tensor, ...]:
        """What a stage's calibration reads: the diffusion's scores (n, C), the prior's logits."""
        num_steps = self.num_steps if num_steps is None else num_steps
        n_samples = self.n_samples if n_samples is None else n_samples
        n_views = self.n_views if n_views is None else n_views
        check_num_steps(num_steps, self.network_.schedule.num_train_timesteps)
        check_whole("n_samples", n_samples)
        check_n_views(n_views, self.augment)
        scores, prior_logits = [], []
        # Augmenting draws from torch's generator, which belongs to the process.
        with ONE_FIT_AT_A_TIME if n_views > 1 else nullcontext():
            for conditions, _ in self._encode(X, n_views):
                prior_logits.append(over_views(conditions.fused_logits, n_views).cpu())
                if stage == "prior":
                    continue
                draws = sample_scores(
                    self.network_,
                    conditions,
                    num_steps=num_steps,
                    n_samples=n_samples,
                    seed=self.seed_,
                    dtype=inference_dtype(self.precision),
                )
                scores.append(over_views(draws.mean(dim=1), n_views).cpu())
        prior = torch.cat(prior_logits)
        return (torch.cat(scores), prior) if scores else (prior,)

    @property
    def _augmentation(self) -> Augment | None:
        """What ``augment`` says, as a function."""
        return named_augment(self.augment) if isinstance(self.augment, str) else self.augment

    def _encode(self, X: Any, n_views: int = 1) -> Iterator[tuple[Conditions, Tensor]]:
        """Conditions of each batch of X in views side by side, and the sizes of its images."""
        check_parameters(self.get_params(deep=False))
        inputs = Stream.of(X) or read_inputs(X, known_channels=self.channels_)
        images: PreparedImages | PreparedStream
        if isinstance(inputs, Stream):
            images = PreparedStream(inputs, self.image_size_)
        else:
            images = PreparedImages(inputs.images, self.image_size_)
        return encode_images(
            self.network_,
            images,
            batch_size=self.batch_size,
            num_workers=self.num_workers if inputs.num_workers is None else inputs.num_workers,
            device=next(self.network_.parameters()).device,
            dtype=inference_dtype(self.precision),
            n_views=n_views,
            augment=self._augmentation if n_views > 1 else None,
            seed=self.seed_,
        )

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the network on the CPU, so that it can be read where there is no GPU."""
        state: dict[str, Any] = dict(super().__getstate__())  # that may be the estimator's own
        if "network_" in state and next(self.network_.parameters()).device.type != "cpu":
            state["network_"] = copy.deepcopy(self.network_).cpu()
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


# Accelerate's state and torch's generators belong to the process, not to a thread.
ONE_FIT_AT_A_TIME = threading.RLock()
ARCHITECTURE_PARAMETERS = sorted(
    {field.name for field in fields(Architecture)}
    & set(DiffMICClassifier().get_params(deep=False)) - {"pretrained"}
)


def _part(data: LabelledImages) -> Part:
    return Part(data.images, torch.from_numpy(data.targets), torch.from_numpy(data.weights))
