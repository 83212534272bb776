"""What other processes do in tests; a module of its own, so that they can import it."""

import torch


def probabilities(classifier, X):
    """Probabilities of X, as a process says them."""
    torch.set_num_threads(1)
    return classifier.predict_proba(X)
