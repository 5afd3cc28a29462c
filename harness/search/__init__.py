"""Choose the trials to run, without Ray: plan of a grid, search spaces, samplers, pruners, one Optuna study per cell.

Owns trial identities and the choice of configurations. May import training and all packages below it.
"""
