"""Implementation of the estimator's methods, as functions on plain values."""
