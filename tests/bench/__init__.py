"""What aidsafe costs: measurements with targets, one module each. See `__main__`."""
