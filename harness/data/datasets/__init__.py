"""Built-in data sets that the bench can download. One module per data set or family of data sets (`variants`)."""
