"""Metrics of recommendation lists beyond the target's rank. A module is a metric: its function of that name maps lists
and a catalogue to a number.

Owns the lists and the catalogue (`_base`) and the list of all metrics (`_all`). May import registry and types.
"""
