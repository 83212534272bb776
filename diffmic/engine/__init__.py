"""Prediction engines: a trained network, rewritten once for faster predictions."""

from .make import ENGINES, prediction_engine, usual_engine

__all__ = ["ENGINES", "prediction_engine", "usual_engine"]
