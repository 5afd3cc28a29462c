"""The option `--components`: folders of components from outside harness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.verbs._types import UserPath

COMPONENTS: dict[str, Any] = {
    "multiple": True,
    "envvar": "HARNESS_COMPONENTS",
    "type": UserPath(),
    "metavar": "DIR",
    "help": "Folder of your own adapters/, backbones/, losses/, ... (see docs/own-components.md). May be repeated.",
}


def _use_components(context: click.Context, _: click.Parameter, folders: tuple[Path, ...]) -> None:
    if not context.resilient_parsing:
        registry.use_folders(folders)


components_option = click.option("--components", callback=_use_components, expose_value=False, **COMPONENTS)
