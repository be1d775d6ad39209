"""The verbs of the command line, one a file: what its first line says, `add_arguments(parser)` and `run(options)`."""
