"""The command line: `stillwell --help`."""
