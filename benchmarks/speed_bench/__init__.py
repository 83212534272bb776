"""The parts of ``benchmarks/speed.py``: timing, what is measured, the report and the picture."""
