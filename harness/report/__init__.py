"""From the ledger to tables and files: frames, lookups of rows, comparisons, published numbers, table formats.

Owns what a reader sees of the results. May import search and all rooms below it; never the engine.
"""
