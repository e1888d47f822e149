"""Agents that deliberate: their typed replies, the state that their turns lead to, their roles."""
