"""Agents that make preference pairs: their typed replies, the state of a pair chat, their roles."""
