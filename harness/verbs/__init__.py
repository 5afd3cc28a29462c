"""The verbs of the command line: a file a verb, its name the word; what starts with `_` is shared."""
