"""The command line, and everything that only the command line needs."""
