"""Experiments of the command ``distribution.py``."""
