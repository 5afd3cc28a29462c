"""Baselines without training, included as rows of every table. One module per baseline."""
