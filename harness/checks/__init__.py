"""The linter of data sets: every fault that is known to spoil a result, with a number and a remedy.

`linter` runs the checks; a module here is a family of faults and yields `Finding`s from `Facts`. May import search and
all packages below it; never the engine or the report.
"""
