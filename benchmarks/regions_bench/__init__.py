"""Do regions lie where the truth is? Shared code of ``benchmarks/regions.py``."""
