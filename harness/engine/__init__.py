"""Run trials in parallel on Ray: Tune driver, worker processes, slots, head node, failures.

Owns every call to Ray; only `ray_tune` imports it. May import search and all packages below it.
"""
