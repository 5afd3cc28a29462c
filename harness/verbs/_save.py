"""Write a study file: what a command line says, without what are defaults and without secrets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from harness.paths import expanded
from harness.registry import quoted, split_list
from harness.types import HarnessError
from harness.verbs import _study
from harness.verbs._options import HOME, Options
from harness.verbs._request import request_of
from harness.words import pairs

HEAD = "# A study of harness: `harness plan FILE` shows its plan, `harness bench FILE` runs it.\n"
LEFT_OUT = "  # without user, password and parameters: set them in the environment"
URL = re.compile(r"\s*[A-Za-z][\w+.-]*://.+", re.DOTALL)
USER = re.compile(r"\s*[^\s@:]+:\S+@\S+\s*")  # user:password@host without a scheme


def save(options: Options) -> None:
    """Write the options of a bench or plan to the study file that `--save` names, after checking them.

    Raises HarnessError for invalid options, or if there is a file of that name with another content.
    """
    from harness.record.ledger import Ledger
    from harness.search import plan
    from harness.system import files

    path = expanded(options["save"])
    if path.suffix != _study.SUFFIX:
        raise HarnessError(f"--save {path}: the name of a study file ends in {_study.SUFFIX}; write {path}.toml.")
    request = request_of(options)
    plan.check(request, Ledger.open(request.home))
    content = text(options)
    try:
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != content:
            raise HarnessError(f"--save {path}: the file exists with other content. Choose another name or delete it.")
        files.write_text(path, content)
    except OSError as error:
        raise HarnessError(f"--save {path}: the file cannot be written ({error.strerror}).") from error
    click.echo(f"Saved the study: {path}. Run it with: harness bench {path}", err=True)


def text(options: Options, *, with_home: bool = True) -> str:
    """Return the study file of these options: one line for each that is not at its default, `[set]` last.

    Paths are absolute, below the user's home folder with `~`. Secrets in addresses are left out.
    """
    offered, plain = _study.keys(), _defaults(options["suite"]) | {"suite": None, "components": (), "home": HOME}
    values = _with_words(_of_study_file(options))
    lines, pins = "", ""
    for key, option in offered.items():
        name = str(option.name)
        if name not in values or values[name] == plain[name] or (name == "home" and not with_home):
            continue
        if option.multiple and not isinstance(option.type, click.Path):
            pins += "".join(f"{_string(word)} = {value}\n" for word, value in _settings(values[name]))
        else:
            lines += f"{key} = {_written(option, values[name], Path(values['home']))}\n"
    return HEAD + lines + (f"\n[set]\n{pins}" if pins else "")


def _defaults(suite: str | None) -> Options:
    """Return the options of a bench without any, or with only a suite."""
    from harness.verbs import bench

    with bench.command.make_context("bench", ["--suite", suite] if suite else []) as context:
        return context.params


def _of_study_file(options: Options) -> Options:
    """Add options of the study file that this command does not have (`harness plan study.toml --save other.toml`)."""
    context = click.get_current_context(silent=True)
    return {**((context and context.default_map) or {}), **options}


def _with_words(options: Options) -> Options:
    """Join the data sets that are plain words with those of `--datasets`."""
    if not options["more_datasets"]:
        return options
    words = [options["datasets"] or "", *options["more_datasets"]]
    return options | {"datasets": ",".join(words).strip(",")}


def _written(option: click.Option, value: Any, home: Path) -> str:
    from harness.record import tracking_uri
    from harness.system import toml_text

    value = _study.absolute(option, value, Path.cwd(), home)
    if isinstance(option.type, _study.Names):
        words = [quoted(_tilde(word)) for word in split_list(value)]
        listed = split_list(",".join(words)) == [_tilde(word) for word in split_list(value)]
        return toml_text.value(words if listed else value)
    if isinstance(value, tuple):
        return toml_text.value([_tilde(path) for path in value])
    if isinstance(option.type, click.Path):
        value = _tilde(str(value))
    public = value
    if isinstance(value, str) and URL.fullmatch(value) and "sqlite:" not in value:
        public = tracking_uri.redact(value.strip())
    elif isinstance(value, str) and USER.fullmatch(value):
        public = value.rpartition("@")[2]
    return toml_text.value(public) + (LEFT_OUT if public != value else "")


def _tilde(text: str) -> str:
    """Write a path below the user's home folder with `~`, so that the file does not name the user."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return text
    return re.sub(rf"(^!?|:){re.escape(home)}(?=/)", r"\1~", text) if len(home) > 1 else text


def _settings(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return parameter and value, as TOML, of the settings of `--set`."""
    from harness.system import toml_text

    settings = dict(pairs(",".join(words), "--set")).items()
    return [(name, toml_text.value(_scalar(value))) for name, value in settings]


def _scalar(value: Any) -> Any:
    """Return a value that TOML has, or the text that `--set` reads as this value."""
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str) and pairs(f"x={value}", "--set") == [("x", value)]:
        return value
    return repr(value)  # a string such as '1', or a list


def _string(word: str) -> str:
    from harness.system import toml_text

    return toml_text.string(word)
