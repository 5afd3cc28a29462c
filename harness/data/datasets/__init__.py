"""Data sets the bench can fetch by itself. One module a data set, or a family of them (`variants`)."""
