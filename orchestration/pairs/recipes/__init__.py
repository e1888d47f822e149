"""Shipped pair recipes."""
