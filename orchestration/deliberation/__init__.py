"""Deliberations: recipe, termination, the CoT record and how a run makes one of each prompt."""
