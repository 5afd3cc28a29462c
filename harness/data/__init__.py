"""Find, download, read, filter, order and split data sets.

Owns the files with interactions and item texts, and all their checks. May import stats, metrics, system, registry and
types.
"""
