"""Names of metrics in words, for tables and cards."""

METRIC_WORDS = {
    "accuracy": "accuracy",
    "label_accuracy": "accuracy of single labels",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "macro AUC",
    "kappa": "quadratic kappa",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_mass": "the same in bins of equal mass",
    "ece_classwise": "classwise calibration error",
}
CLASS_WORDS = {"f1": "F1", "auc": "AUC"}  # of a single class, where they differ from their names
