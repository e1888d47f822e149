"""Keeping chats small: thousands of them are alive at the same time."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_SHARED: set[str] = set()


def slim(value: Any) -> None:
    """Lets go of what pydantic remembers of which fields an object was given.

    That is a set of 200 to 700 bytes for every object, kept as long as the object, and of use only
    to `exclude_unset`, which nobody asks for. Goes into lists and nested objects.

    Args:
        value: An object that is not changed any more; anything but pydantic's is left alone.
    """
    if isinstance(value, BaseModel):
        if value.__pydantic_fields_set__ is _SHARED:
            return  # done before, with all that is in it
        object.__setattr__(value, "__pydantic_fields_set__", _SHARED)
        for part in value.__dict__.values():
            if isinstance(part, BaseModel | list | tuple):
                slim(part)
    elif isinstance(value, list | tuple):
        for part in value:
            slim(part)
