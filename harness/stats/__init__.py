"""Confidence intervals, paired tests, multiple-test corrections and letter groups. NumPy and SciPy only.

Owns the statistics of the tables. May import system, registry and types.
"""
