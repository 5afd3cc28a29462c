"""Tests that every component must pass, whoever wrote it.

`pytest --pyargs harness.conformance --components DIR` tests the components of a folder, without the option all built-in
ones. Needs pytest, which harness does not install. Imported by nothing.
"""
