"""One chat: the team, its agents in their places, its conditions, how its turns are shown."""

from orchestration.chat.deliberation_chat import DeliberationChat

__all__ = ["DeliberationChat"]
