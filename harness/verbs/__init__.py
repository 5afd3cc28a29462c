"""The commands of `harness`. A module is a command: `command` is its click command, `rank` its place in the help.

Owns options and what is printed. May import workflows and all packages below it; heavy imports stand inside functions.
"""
