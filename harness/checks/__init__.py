"""What can be wrong with a data set. One module a family of faults; each yields `Finding`s out of `Facts`."""
