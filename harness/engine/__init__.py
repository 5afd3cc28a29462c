"""Trials side by side on Ray: the Tune driver, the worker process, slots, the head node, failures.

Owns every call to Ray (`ray_tune` alone imports it). May import search and all rooms below it.
"""
