"""The commands of the command line: one file per command, named like it; files that start with `_` are shared.

Owns the options and their checks. May import every package below.
"""
