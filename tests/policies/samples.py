"""Small policy sets to bend, and what the reader says of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import BaseModel

from policies import PolicySet, YamlError, parse_yaml_text

POLICY: dict[str, Any] = {
    "id": "fraud",
    "title": "Fraud",
    "version": "1.0",
    "definition": "Deceiving people.",
    "rules": [
        {"id": "FD1", "text": "Do not write scams."},
        {"id": "FD2", "text": "Do not forge."},
    ],
    "allowed": ["How scams work."],
    "respond": {"help": "When safe.", "help_safely": "In part.", "decline": "When harmful."},
    "overlaps": [{"policy": "harm", "prevails": "harm", "note": "on injury"}],
}

POLICY_SET: dict[str, Any] = {
    "id": "small",
    "title": "Small set",
    "version": "1.0",
    "description": "For tests.",
    "policies": [
        POLICY,
        {
            **POLICY,
            "id": "harm",
            "title": "Harm",
            "rules": [{"id": "PH1", "text": "Do not injure."}],
            "overlaps": [],
        },
    ],
}

YAML = """\
id: small
title: Small set
version: "1.0"
description: For tests.
policies:
  - id: fraud
    title: Fraud
    version: "1.0"
    definition: Deceiving people.
    rules:
      - id: FD1
        text: Do not write scams.
      - id: FD2
        text: Do not forge.
    allowed:
      - How scams work.
    respond:
      help: When safe.
      help_safely: In part.
      decline: When harmful.
    overlaps:
      - policy: harm
        prevails: harm
        note: on injury
  - id: harm
    title: Harm
    version: "1.0"
    definition: Deceiving people.
    rules:
      - id: PH1
        text: Do not injure.
    allowed:
      - How scams work.
    respond:
      help: When safe.
      help_safely: In part.
      decline: When harmful.
    overlaps: []
"""
"""The same set; the line numbers that tests name are those of this text."""


def small_set() -> dict[str, Any]:
    return copy.deepcopy(POLICY_SET)


def bend(*changes: tuple[str, str]) -> str:
    """The YAML with each old text, which must be in it, replaced where it first stands."""
    text = YAML
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


JARGON = ("value_error", "_type", "Input should", "pydantic", "str_", "Traceback", "errors.")


def problems_of(text: str, model: type[BaseModel] = PolicySet) -> list[str]:
    """Every problem of a text as the user sees it, one a line and in plain words."""
    with pytest.raises(YamlError) as caught:
        parse_yaml_text(text, "my.yaml", model)
    message = str(caught.value)
    assert not [word for word in JARGON if word in message]
    assert len(message.splitlines()) == len(caught.value.problems)
    return message.splitlines()
