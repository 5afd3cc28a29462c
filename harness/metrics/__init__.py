"""Ranking metrics. One module a metric: a function of a target's rank."""
