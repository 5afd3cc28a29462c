"""The linter for data sets. Each module checks one family of faults and yields `Finding`s from `Facts`."""
