"""One trial, from its description to its result: batches, losses, the training loop, ranking, collapse diagnostics.

Owns what a trial computes. Knows no scheduler and no disk. May import text, data and all rooms below them.
"""
