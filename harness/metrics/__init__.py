"""Ranking metrics. One module per metric: a function of a target's rank."""
