"""Ranking metrics. A module is a metric: its function of that name maps ranks and a cut-off to scores.

Owns ranks with ties (`_ties`) and the list of all metrics (`_all`). May import registry and types.
"""
