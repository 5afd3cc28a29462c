"""The pytest option `--components` of the conformance suite.

pytest loads this file wherever harness is installed, so it imports nothing heavy.
"""

import os
from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--components", action="append", metavar="DIR", help="With harness.conformance: test the components of DIR."
    )


def pytest_configure(config: Any) -> None:
    folders = config.getoption("--components")
    if not folders:
        return
    import pytest

    from harness import registry
    from harness.types import HarnessError

    os.environ["HARNESS_COMPONENTS"] = os.pathsep.join(folders)  # for workers of pytest-xdist
    try:
        registry.use_folders(folders)
        registry.check_own()
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None
