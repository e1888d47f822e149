"""What YAML files of every kind have in common: names, consistency, a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, StringConstraints, model_validator

from policies.errors import FieldError, Finding

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,47}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Lower case, digits, underscores."""
SingleLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\n]*$")
]

Check = Callable[[Any], Iterable[Finding]]
"""Finds what types cannot express, such as an id used twice. It gets the raw data even where that
has the wrong shape, and must cope, so that all problems of a file are reported together."""


class YamlModel(BaseModel, extra="forbid", frozen=True):
    """The content of a YAML file, or a part of it."""

    checks: ClassVar[tuple[Check, ...]] = ()
    """Their findings have lines in a file; in content that is made in Python, the first counts."""
    unhashed: ClassVar[tuple[str, ...]] = ()
    """Fields that name other files, which have fingerprints of their own."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for check in self.checks:
            for _, cause, remedy in check(self.model_dump()):
                raise FieldError(cause, remedy)
        return self

    # Not cached: `model_copy`, by which scripts edit a persona, would copy the cache too.
    @property
    def hash(self) -> str:
        """Fingerprint of the content, as records cite it: `sha256:` and 16 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude=set(self.unhashed))
        return fingerprint(json.dumps(content, sort_keys=True, ensure_ascii=False))


def fingerprint(text: str) -> str:
    """Identifies a text: `sha256:` and 16 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]
