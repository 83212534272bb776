"""The parts of ``benchmarks/accuracy.py``: tasks, encoders, methods, results."""
