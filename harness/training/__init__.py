"""Train and evaluate one trial: batches, losses, the training loop, ranking, collapse diagnostics.

No scheduler; only `exported_model` reads files. May import text, data and the packages below them.
"""
