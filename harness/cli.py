"""The command line: run a command, report errors in one line. Results go to stdout, progress to stderr.

Imports nothing heavy. Each command is a file in `harness/verbs` with a click command called `command` and its `rank`:
its position in the help. `interrupted`: its message at Ctrl-C, where that of a bench would be wrong.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from harness import registry
from harness.types import INTERRUPTED, HarnessError, Interrupted


class Verbs(click.Group):
    """The commands, sorted by `rank`. HarnessError and usage errors print one line and exit with code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            _escape(stream)
        return super().main(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _misused(error, ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        verbs = registry.names(registry.VERBS)
        return sorted(verbs, key=lambda name: registry.schema(registry.VERBS, name).attributes["rank"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stem = registry.find(registry.VERBS, cmd_name)
        command = importlib.import_module(f"{registry.VERBS}.{stem}").command
        command.name = stem  # in documentation; all of them are functions called `command`
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and ctx.auto_envvar_prefix:
            check_environment(f"{ctx.auto_envvar_prefix}_{str(name).upper()}_", command)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except click.UsageError as error:
            _misused(error, ctx)
        except KeyboardInterrupt as error:
            click.echo(f"\n{_interrupted(ctx.invoked_subcommand)}", err=True)
            ctx.exit(error.code if isinstance(error, Interrupted) else 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            from harness.system import files

            full = files.refused(error)
            if ctx.params.get("debug") or not (full or error.filename):
                raise
            rest = files.GOES_ON if full else "Correct this file or folder; harness --debug shows the traceback."
            click.echo(f"Error: {error.filename or 'The disk'}: {files.reason(error)}. {rest}", err=True)
            ctx.exit(2)


def _escape(stream: Any) -> None:
    """Print characters that the encoding of a stream lacks, such as latin-1, as escapes."""
    if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _misused(error: click.UsageError, ctx: click.Context) -> NoReturn:
    """Print a usage error in one line and exit."""
    help_at = (error.ctx or ctx).command_path
    click.echo(f"Error: {' '.join(error.format_message().split())} See: {help_at} --help", err=True)
    ctx.exit(2)


def _interrupted(verb: str | None) -> str:
    """Return the message of an interrupted command."""
    return registry.schema(registry.VERBS, verb).attributes.get("interrupted", INTERRUPTED) if verb else INTERRUPTED


def check_environment(prefix: str, command: click.Command) -> None:
    """Raise HarnessError for a variable with this prefix that no option of the command reads."""
    options = [option for option in command.params if isinstance(option, click.Option) and option.allow_from_autoenv]
    variables = [prefix + option.opts[0].lstrip("-").replace("-", "_").upper() for option in options]
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in variables:
            near = next(iter(difflib.get_close_matches(name, variables, n=1)), "")
            hint = f"Did you mean {near}?" if near else f"Allowed: {prefix} and the long name of an option."
            raise HarnessError(f"The environment variable {name} sets no option. {hint}")


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "auto_envvar_prefix": "HARNESS"}


@click.group(cls=Verbs, context_settings=SETTINGS)
@click.version_option(package_name="harness-bench", prog_name="harness", allow_from_autoenv=False)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Compare ways of turning LLM text embeddings into item embeddings for sequential recommendation.

    \b
    harness bench --datasets all --adapters all      train the grid, print the leaderboard
    harness plan  --datasets all --adapters all      show what that would run
    harness list                                     list adapters, backbones, encoders, data sets
    """


if __name__ == "__main__":
    main()
