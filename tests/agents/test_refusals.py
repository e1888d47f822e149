"""Prose instead of a reply: a refusal to take part, or only the wrong form?"""

from __future__ import annotations

import pytest

from agents.parsing import looks_like_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, I can\N{RIGHT SINGLE QUOTATION MARK}t assist.",
        "**Sorry**, but this is not something I will discuss.",
        "Sorry.",
        "I am very sorry.",
        "I apologize, but I cannot take part in this.",
        "I must apologise; this is not for me.",
        "I can't continue with this.",
        "I cannot and will not provide that.",
        "I can not do this.",
        "I won't help.",
        "I will not write that.",
        "I must respectfully decline.",
        "I have to decline this request.",
        "I'm unable to assist with that request.",
        "I am not able to help.",
        "I'm not comfortable with this.",
        "We cannot provide this.",
        "Unfortunately, I cannot assist.",
        "I'm afraid I can't do that, Dave.",
        "As an AI language model, I cannot produce harmful content.",
        "As an AI, I'm not able to discuss this.",
        "As an assistant I can't help with weapons.",
        " \n I simply can't.",
    ],
)
def test_this_reads_like_a_refusal(text: str) -> None:
    assert looks_like_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can explain why this is harmless.",
        "I accept.",
        "I agree with the thoughts, and cannot be clearer: accept.",
        # Finding nothing is a deliberator's work; only the form is wrong, so it is corrected.
        "I am not able to see a problem.",
        "I cannot find anything to add.",
        "I can't think of an objection.",
        "I think the user can't be harmed by this.",
        "The assistant can't help with that and should decline.",
        "The response says: I'm sorry, but I can't help with that.",
        "Sorry for the confusion. The verdict is accept.",
        "I apologize for the mistake, here is the object.",
        "As an AI safety reviewer I see no harm here.",
        "This prompt must be declined: I'd refuse.",
        '{"comment": "I cannot help',
        "I'm sorted.",
    ],
)
def test_this_does_not_read_like_a_refusal(text: str) -> None:
    assert not looks_like_refusal(text)


def test_the_pattern_takes_linear_time() -> None:
    """If two parts of a pattern could match the same words, each word would double the work."""
    assert not looks_like_refusal("I " + "simply " * 28 + "x")
