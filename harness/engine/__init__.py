"""Run trials in parallel on Ray: session, Tune driver, worker processes, slots, head node, failures.

Owns every call to Ray; only `ray_cluster` and `ray_tune` import it. May import search and all packages below it.
"""

import os

from harness.system import accounts

# Ray reads these when it is imported.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # the ledger does this
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "64")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # `Stop` handles it
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # `GridScheduler` logs a line for each
accounts.ensure_home()
