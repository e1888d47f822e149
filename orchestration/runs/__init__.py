"""Runs: many prompts through as many chats, with nothing lost and nothing paid for twice."""

from orchestration.runs.run import Run

__all__ = ["Run"]
