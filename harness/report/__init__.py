"""Turn the ledger into tables and files: frames, row look-up, comparisons, published numbers, table formats.

Owns everything a reader sees of the results. May import search and all packages below it; never the engine.
"""
