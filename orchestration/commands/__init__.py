"""One module per command of the `aidsafe` command line."""
