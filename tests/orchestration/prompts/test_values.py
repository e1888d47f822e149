"""What becomes of values that JSON cannot hold."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from orchestration.prompts.values import to_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.float32("nan"), None),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (float("inf"), None),
        ((1, (2,)), [1, [2]]),
        ({1: {"a": b""}}, {"1": {"a": "<0 bytes>"}}),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (object(), "<object>"),
    ],
)
def test_any_value_becomes_json_able(value: object, expected: object) -> None:
    result = to_json(value)
    assert result == expected
    assert type(result) is type(expected)
    json.dumps(result, allow_nan=False)


def test_what_is_nested_very_deep_is_cut_off() -> None:
    value: object = "deep"
    for _ in range(5_000):
        value = [value]
    text = json.dumps(to_json(value))
    assert text == "[" * 50 + '"<list>"' + "]" * 50
