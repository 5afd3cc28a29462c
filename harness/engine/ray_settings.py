"""Set environment variables that Ray and Tune read when they are imported, unless they are set. Does not import Ray."""

from __future__ import annotations

import os
from pathlib import Path

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the ledger does this
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Stop` handles it
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # `GridScheduler` logs a line for each
}


for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
try:
    Path.home()
except RuntimeError:  # no HOME and no entry for this user: importing Ray would fail
    os.environ["HOME"] = "/"
