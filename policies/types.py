"""The types of policies: what a rule, a policy and a policy set are made of."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
)

from policies.consistency import find_policy_conflicts, find_set_conflicts
from policies.errors import FieldError, quote
from policies.yaml_model import YamlModel, fingerprint


def _clean(text: str) -> str:
    """Joins the lines of a text, so that how it is wrapped changes neither prompt nor hash."""
    for character in text:
        if character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cs"):
            raise FieldError(
                f"A text holds a control character (code {ord(character):#x}).", "Delete it."
            )
    return " ".join(text.split())


def _of_form(pattern: str, kind: str, form: str) -> AfterValidator:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise FieldError(f"{quote(value)} is not a valid {kind}.", f"Use {form}.")
        return value

    return AfterValidator(check)


Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120),
    AfterValidator(_clean),
]
"""A name for people."""

Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000),
    AfterValidator(_clean),
]
"""A sentence or a paragraph, on one line however it was wrapped."""

Note = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=2000), AfterValidator(_clean)
]
"""A text that may be empty."""

PolicyId = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    _of_form(
        r"[a-z][a-z0-9_]{1,47}",
        "policy id",
        "lower-case letters, digits and underscores, beginning with a letter, 2 to 48 in all, such "
        'as "fraud_deception"',
    ),
]
"""Names a policy or a policy set; models cite it."""

RuleId = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    _of_form(
        r"[A-Za-z][A-Za-z0-9_.-]{0,23}",
        "rule id",
        "letters, digits, dots, hyphens and underscores, beginning with a letter, at most 24 in "
        'all, such as "FD1"',
    ),
]
"""Names a rule, once in a whole policy set; models cite it."""

Version = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    _of_form(
        r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}",
        "version",
        'digits, letters, dots, hyphens and plus signs, such as "1.0"',
    ),
]
"""Told to people; programs compare hashes."""


class _Part(YamlModel):
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copies by validating anew; pydantic's own copy would keep the cached ids."""
        return self.model_validate({**self.model_dump(), **(update or {})})

    @property
    def hash(self) -> str:
        """Changes if and only if the content does: `sha256:` and 16 hexadecimal digits."""
        # Defaults are left out, so that a field added later changes no hash until it is used.
        content = self.model_dump(mode="json", exclude_defaults=True)
        compact = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return fingerprint(compact)


class Rule(_Part):
    """One thing that a policy demands or forbids."""

    id: RuleId
    """Unique in the whole policy set."""
    text: Text
    """The rule, as a sentence that can be judged kept or broken."""


class ResponseGuide(_Part):
    """How to respond to a prompt that a policy bears upon."""

    help: Text
    """When to help in full."""
    help_safely: Text
    """When to help with part of what is asked, and how."""
    decline: Text
    """When to decline, and why."""


class Overlap(_Part):
    """Another policy of the set that bears upon the same prompts."""

    policy: PolicyId
    """The other policy."""
    prevails: PolicyId
    """The policy that decides: the other one, or the one that states this overlap."""
    note: Note = ""
    """Where they meet, or why that one prevails."""


class Policy(_Part):
    """What a model may and may not do in one area of harm."""

    checks = (find_policy_conflicts,)

    id: PolicyId
    """Cited by thoughts."""
    title: Title
    """Its name for people."""
    version: Version
    """Its writer's version of it."""
    definition: Text
    """What the policy is about."""
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=50)
    """What it demands and forbids."""
    allowed: tuple[Text, ...] = Field(max_length=50)
    """What stays allowed though it looks close; it holds over-refusal down."""
    respond: ResponseGuide
    """How to respond."""
    overlaps: tuple[Overlap, ...] = Field(default=(), max_length=50)
    """Where it meets other policies; an overlap need be stated by only one of the two."""


class PolicySet(_Part):
    """The policies that are reasoned over together."""

    checks = (find_set_conflicts,)

    id: PolicyId
    """Its name in commands and records."""
    title: Title
    """Its name for people."""
    version: Version
    """Its writer's version of it."""
    description: Text
    """What the set is for; told to people, not to models."""
    source: Note = ""
    """What it was written after; told to people, not to models."""
    policies: tuple[Policy, ...] = Field(min_length=1, max_length=100)
    """In the order in which models see them."""

    @cached_property
    def policy_ids(self) -> tuple[str, ...]:
        """The ids of all policies, in file order."""
        return tuple(policy.id for policy in self.policies)

    @cached_property
    def owners(self) -> dict[str, str]:
        """The policy id of each rule id, in file order. Treat as read-only."""
        return {rule.id: policy.id for policy in self.policies for rule in policy.rules}

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """The ids of all rules, in file order."""
        return tuple(self.owners)

    def get(self, policy_id: str) -> Policy:
        """The policy of that id; a KeyError if there is none."""
        return {policy.id: policy for policy in self.policies}[policy_id]
