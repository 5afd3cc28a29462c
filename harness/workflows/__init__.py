"""Workflows over a home folder: run a bench from request to report, forecast, calibrate, reproduce, export, diagnose.

Owns the order in which a bench's steps happen, its progress and its provenance. May import every package below.
Named `workflows`, since `harness.bench` is the function of the Python API.
"""
