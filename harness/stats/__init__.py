"""Intervals, paired tests, corrections for many tests, groups of ties. NumPy and SciPy only.

Owns the statistics of the tables. May import system, registry and types.
"""
