"""Data sets: found, fetched, read, filtered, ordered and split.

Owns the files that interactions and texts come from, and every check that guards them. May import stats, metrics,
system, registry and types.
"""
