"""Scorers that train nothing and stand as rows of every table. One module a baseline."""
