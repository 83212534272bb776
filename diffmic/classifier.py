"""The estimator: DiffMICClassifier."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import Tags

from .estimator.calibrating import Calibrating
from .estimator.decisions import Decisions
from .estimator.doubt import Doubts
from .estimator.exporting import Exporting
from .estimator.persistence import Persistence
from .estimator.populations import prevalence_of
from .estimator.prediction import evidence_for
from .estimator.preparation import fitted_model, prepare_fit
from .estimator.presets import preset_parameters
from .estimator.reports import report, what_was_kept
from .estimator.results import Results
from .inference import Stage
from .model import Architecture
from .settings import undisturbed
from .training import Recipe, fit_network


class DiffMICClassifier(
    Calibrating,
    Exporting,
    Decisions,
    Persistence,
    Results,
    Doubts,
    ClassifierMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Medical image classifier based on conditional diffusion over label maps (DiffMIC-v2).

    A dual-granularity prior (the whole image and its most salient regions) guides the denoising
    of a small label map. The mean of the map, calibrated on held-out images, gives the class
    probabilities. For comparison, ``stage="prior"`` gives those of the prior alone.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tf_efficientnet_lite0"
        Image encoder: the name of a timm model, or a module that maps images (B, 3, H, W) to a
        feature map (B, D, h, w). It also computes the saliency map, unless the architecture has
        a ``prior_backbone``.
    pretrained : bool, str or Path, default=True
        Pretrained weights: whether to load them for named backbones, or the path of a file of
        weights for ``backbone``. If loading fails, ``fit`` raises ``PretrainedWeightsError``.
    architecture : str or Architecture, default="default"
        Network architecture: ``"default"``, ``"zoom"``, ``"paper-v2"``, ``"paper-v1"``, or a
        ``diffmic.model.Architecture``.
    image_size : int or "auto", default="auto"
        Side of the network's input in pixels, to which images are resized. Auto: the input size of
        the backbone where that is fixed, else the longer side of the first image, at most 224.
    num_steps : int, default=10
        Number of sampler steps per prediction.
    n_draws : int, default=4
        Number of draws (sampled label maps) per image, whose scores are averaged.
    n_views : int, default=1
        Test-time augmentation: number of views averaged per image, the original and n_views − 1
        augmented copies. Prediction time is proportional to it.
    recipe : str or Recipe, default="default"
        Training recipe: ``"default"``, ``"paper-v2"``, ``"paper-v1"`` (DiffMIC, v1, with any
        architecture), or a ``diffmic.training.Recipe``.
    task : {"auto", "multiclass", "multilabel", "ordinal"}, default="auto"
        Type of task. Auto: multi-label if y is an indicator matrix, ordinal if it is an ordered
        pandas categorical, else multi-class. Ordinal: classes are grades in sorted order (or that
        of the categorical); decisions maximise quadratic kappa.
    uncertain : {"error", "unknown", "positive", "negative"}, default="error"
        Meaning of −1 in an indicator matrix, as in CheXpert: refused, unknown like NaN, 1, or 0.
    max_epochs : int, default=20
        Maximum number of epochs of stage one, and of stage two unless the recipe sets its own.
    batch_size : int, default=32
        Mini-batch size. While training, the batch size of a DataLoader passed as X takes
        precedence.
    learning_rate : float, default=1e-3
        Peak learning rate of stage one (AdamW); the recipe scales it for backbone and heads.
    validation_fraction : float or None, default=0.15
        Fraction of the images held out for early stopping and calibration, unless ``fit`` is given
        ``validation_data``. None: no validation part; probabilities are then not calibrated.
    class_weight : None, "balanced" or dict, default=None
        Class weights in the losses (dict keys: labels in y); they replace class-balanced sampling.
    augment : str, None or callable, default="auto"
        Augmentation of training images and of test-time views. ``"auto"``: shifts, small rotations,
        horizontal flips. ``"rotations"``: any angle, and vertical flips too, for images without an
        upright direction (skin, fundus, cells). ``"paper"``, ``"paper-fundus"``, ``"paper-chest"``:
        those of the papers. None: no augmentation. Or a ``torchvision.transforms.v2`` transform of
        tensors (3, S, S).
    value_range : (low, high) or None, default=None
        Pixel values of black and white, for images of more than 8 bits and for floats, such as
        (-1000, 400) for CT in Hounsfield units. None: found over the training images for files and
        arrays of 16 bits; floats lie in 0–1. Images of 8 bits are always 0–255.
    on_error : {"raise", "skip"}, default="raise"
        What ``fit`` does about images that cannot be read. Skip: they are left out, with their
        labels, weights and groups, and a warning counts them. Predictions always raise an error.
    class_names : sequence of str, dict or None, default=None
        Display names of the classes, in the order of ``classes_``, or a dict from label to name.
        None: those that came along with the data, if any; see ``class_names_``.
    image_key, label_key : str or None, default=None
        Keys of image and target in items or batches that are dicts. None: ``image``, ``img`` or
        ``pixel_values``, and ``label``, ``target``, ``lab`` or ``class``; also their plurals.
    warm_start : bool, default=False
        Whether ``fit`` starts from the fitted network; for other classes, with new heads.
    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        Numerical precision. Auto: mixed-precision training where the hardware supports it, float32
        inference. A named precision is used for training and inference.
    device : str, default="auto"
        PyTorch device for training and inference. Auto: a CUDA GPU if available, else the CPU.
    num_workers : int, default=0
        Number of worker processes that load images; 0: they are loaded in the main process.
    checkpoint_dir : str, Path or None, default=None
        Folder for checkpoints of a fit, from which ``fit(..., resume=True)`` goes on; a second fit
        at the same time is refused. They hold the network, no images. None: none are written.
    distributed : bool, default=False
        Whether the processes that ``torchrun`` or ``accelerate launch`` started fit one model
        together, each on its share of every batch; ``batch_size`` is that of all.
    time_limit : float or None, default=None
        Seconds within which ``fit`` ends, with the best state that each stage reached until then;
        each has at least one step. None: no limit.
    random_state : int, RandomState or None, default=None
        Random seed. An integer gives the same model and probabilities again on the same machine.
    callbacks : Callback, list of Callback or None, default=None
        Code of one's own at moments of a fit, which can stop it; see ``diffmic.callbacks``.
    verbose : int, default=1
        Verbosity. 0: silent. 1: progress bars. 2: lines through ``logging``, too.

    Attributes
    ----------
    model_ : FittedModel
        Everything that predictions depend on; the next two groups are read-only views of it.
    classes_, class_names_, task_, network_, image_size_, channels_, calibrations_, thresholds_
        Labels and their names, task, network, input side (pixels), channels; per stage, calibration
        and thresholds.
    shares_, recalibration_
        Class shares for which the probabilities hold; record of a later calibration.
    validation_scores_, history_, label_counts_, versions_, seed_
        Record of the fit: cross-fitted metrics of prior, diffusion, and diffusion alone; one row
        per epoch; numbers of known labels; package versions; integer seed derived from
        ``random_state``.
    card_ : ModelCard
        Contents of the model card; set by :meth:`save_pretrained` and :meth:`push_to_hub`.

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
        architecture: str | Architecture = "default",
        image_size: int | str = "auto",
        num_steps: int = 10,
        n_draws: int = 4,
        n_views: int = 1,
        recipe: str | Recipe = "default",
        task: str = "auto",
        uncertain: str = "error",
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        validation_fraction: float | None = 0.15,
        class_weight: Any = None,
        augment: Any = "auto",
        value_range: tuple[float, float] | None = None,
        on_error: str = "raise",
        class_names: Any = None,
        image_key: str | None = None,
        label_key: str | None = None,
        warm_start: bool = False,
        precision: str = "auto",
        device: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | Path | None = None,
        distributed: bool = False,
        time_limit: float | None = None,
        random_state: Any = None,
        callbacks: Any = None,
        verbose: int = 1,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.architecture = architecture
        self.image_size = image_size
        self.num_steps = num_steps
        self.n_draws = n_draws
        self.n_views = n_views
        self.recipe = recipe
        self.task = task
        self.uncertain = uncertain
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.augment = augment
        self.value_range = value_range
        self.on_error = on_error
        self.class_names = class_names
        self.image_key = image_key
        self.label_key = label_key
        self.warm_start = warm_start
        self.precision = precision
        self.device = device
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.distributed = distributed
        self.time_limit = time_limit
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Create an unfitted estimator from a named preset.

        Parameters
        ----------
        name : str
            Name of a preset, such as ``"paper-v2"``; see :func:`diffmic.list_presets`.
        **overrides
            Constructor parameters that replace those of the preset.
        """
        return cls(**{**preset_parameters(name), **overrides})

    @undisturbed
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        validation_data: Any = None,
        soft_labels: Any = None,
        resume: bool = False,
    ) -> Self:
        """Fit the prior (stage one), then the denoiser (stage two), then the calibration of each.

        Parameters
        ----------
        X : array, tensor, list, Dataset or DataLoader
            Images as an array or tensor of shape (n, C, H, W), (n, H, W, C) or (n, H, W), uint8
            in 0–255 or float in 0–1; a list of paths, PIL images or arrays; a map-style Dataset of
            (image, target) or of dicts; a DataLoader, of which what it yields is read; a
            table of ``diffmic.datasets``; or a batch that is a dict. An IterableDataset, or a
            DataLoader with a ``collate_fn`` of its own, is read once and kept in memory.
        y : array-like of shape (n,), (n, 1) or (n, L)
            Class labels, integers or strings; an indicator matrix of 0 and 1 means multi-label, and
            NaN in it an unknown label; with ``task="multiclass"`` rows with a single 1 are the
            number of its column. Not needed if X contains targets.
        sample_weight : array-like of shape (n,) or (n, 1), or None
            Weight of each image in losses and calibration.
        groups : array-like of shape (n,) or (n, 1), or None
            Group of each image, such as its patient; the validation split never divides a group.
        validation_data : (X, y), Dataset, DataLoader or None
            Held-out images with their targets, used instead of ``validation_fraction``.
        soft_labels : array-like of shape (n, C) or None
            Probabilities of exclusive classes, in the order of ``classes_`` or as a table whose
            columns have their names. The prior learns them in place of y, with the recipe's label
            smoothing: shares of several raters' opinions, or predictions of other models. All else
            goes by y: weights, splits, calibration, metrics and, unless the recipe is joint, the
            denoiser. Rows are divided by their sums, which must be within 0.02 of 1.
        resume : bool, default=False
            Whether to go on from the newest checkpoint in ``checkpoint_dir``, of a fit with the
            same data and parameters, as if it had not been interrupted.

        Returns
        -------
        DiffMICClassifier
            The fitted estimator itself.

        Raises
        ------
        InputError
            Images, targets or parameters cannot be used; raised before training starts.
        CheckpointError
            The checkpoint is damaged, or of other data, parameters or versions; or another fit
            writes to the folder.
        PretrainedWeightsError
            Pretrained weights were requested and cannot be loaded.
        TrainingDivergedError
            Training became NaN or infinite. As after any interruption, the best state so far is
            kept.
        """
        plan = prepare_fit(
            self._parameters,
            X,
            y,
            vars(self).get("model_"),
            sample_weight=sample_weight,
            groups=groups,
            validation_data=validation_data,
            soft_labels=soft_labels,
            resume=resume,
        )
        result = fit_network(
            plan.network,
            plan.data.training,
            plan.data.validation,
            plan.options,
            learnt=plan.learnt,
        )
        if result.stopped is not None and not result.history:
            raise result.stopped  # nothing was learnt: an earlier model is kept
        kind = self._engine_kind()
        self.model_, self.card_ = fitted_model(plan, result), self._next_card()  # nothing is lost
        self.compile(kind)
        if result.stopped is not None:
            result.stopped.add_note(what_was_kept(result))
            raise result.stopped
        if plan.options.processes.is_main:
            report(self.model_, result)
        return self

    @undisturbed
    def predict_proba(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
        prevalence: Any = None,
    ) -> NDArray[np.float64]:
        """Predict calibrated class probabilities.

        Parameters
        ----------
        X : as in :meth:`fit`
            Images (targets are ignored); one image gives one row. Iterable Datasets are streamed.
        num_steps, n_draws, n_views : int or None
            Numbers of sampler steps, draws and test-time views; None: those of the estimator. The
            calibration was fitted for those of ``model_.sampling``.
        stage : {"diffusion", "prior"}
            Stage that gives the probabilities: the denoised label map, or the fused prior alone.
        prevalence : dict, sequence or PrevalenceEstimate, optional
            Class shares of the population that the images come from, by class or in the order of
            ``classes_`` (multi-label: of each label). None: ``shares_``, those in training.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to 1; for multi-label one probability per label. They do not depend on the
            batch size, the order of the images or the other images in the batch.

        Raises
        ------
        InputError, NotFittedError
            X or a parameter cannot be used; there is no fitted model, or the stage was not trained.
        """
        model = self._trained(stage)
        shares = prevalence_of(model, prevalence, self.class_names_)
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        evidence = evidence_for(model, self._parameters, X, stage, asked)
        return model.probabilities(evidence, stage, shares)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
