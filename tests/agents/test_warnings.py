"""One warning of pydantic is noise for every user; no other is silenced."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.chat import ParsedChatCompletionMessage
from pydantic import BaseModel

import agents


class Structured(BaseModel):
    grade: int


@pytest.fixture(autouse=True)
def as_imported() -> Iterator[None]:
    """The filters of a program that shows everything, and then imports the package."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        importlib.reload(agents)
        yield


def shown(model: BaseModel) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        model.model_dump()
    return [str(warning.message) for warning in caught]


def of_guest(**changes: Any) -> BaseModel:
    """What AutoGen's OpenAI client logs of a guest with an output type."""
    message = ParsedChatCompletionMessage[None](role="assistant", content="{}")
    for name, value in {"parsed": Structured(grade=3), **changes}.items():
        setattr(message, name, value)
    return message


def test_the_structured_reply_of_a_guest_is_logged_without_a_warning() -> None:
    assert shown(of_guest()) == []


def test_another_field_of_the_wrong_type_still_warns() -> None:
    assert "field_name='content'" in shown(of_guest(content=3))[0]
    assert "field_name='refusal'" in shown(of_guest(parsed=None, refusal=b"no"))[0]


def test_our_own_models_still_warn() -> None:
    broken = Structured.model_construct(**{"grade": "three"})  # type: ignore[arg-type]

    assert "PydanticSerializationUnexpectedValue" in shown(broken)[0]


def test_the_same_words_from_elsewhere_still_warn() -> None:
    text = shown_without_filter()

    with warnings.catch_warnings(record=True) as caught:
        warnings.warn(text, UserWarning, stacklevel=1)
    assert len(caught) == 1


def shown_without_filter() -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        of_guest().model_dump()
    assert len(caught) == 1, "the filter is no longer needed"
    return str(caught[0].message)
