"""The reader with models of other rooms: any shape of pydantic model, with checks of its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from policies import FieldError, Finding, YamlError, parse_yaml_text
from tests.policies.samples import problems_of


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["leaf"] = "leaf"
    color: str = "green"


class Branch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["branch"]
    leaves: dict[str, Leaf] = {}


class Tree(BaseModel):
    """What other rooms' models are made of."""

    model_config = ConfigDict(extra="forbid")
    height: float = Field(1, gt=0, le=100)
    rings: int = 1
    alive: bool = True
    season: Literal["spring", "autumn"] = "spring"
    name: str = Field("x", pattern="^x")
    owner: str | None = None
    part: Annotated[Leaf | Branch, Field(discriminator="kind")] = Leaf()
    tags: list[str] = Field(default=[], max_length=1)

    @field_validator("rings")
    @classmethod
    def _check_rings(cls, rings: int) -> int:
        if rings == 13:
            raise FieldError('"rings" is unlucky.', "Write 12.")
        if rings == 14:
            raise ValueError("fourteen is not allowed")
        return rings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("height: 0", '1: "height" must be more than 0 (got 0). Change the number.'),
        ("height: 101", '1: "height" must be at most 100 (got 101). Change the number.'),
        ("height: tall", '1: "height" must be a number, but it is text. Write a number, without'),
        ("rings: 1.5", '1: "rings" must be a whole number, but 1.5 is read as a number. Write a'),
        ("alive: perhaps", '1: "alive" must be true or false, but it is text. Write true or false'),
        ("season: sprin", '1: "season" must be one of "spring", "autumn", but it is "sprin". Did'),
        ("name: abc", '1: "name" has the wrong form: "abc". It must match ^x.'),
        ("owner: no", '1: "owner" must be text, but no is read as a yes/no value. Put it in'),
        ("tags: [a, b]", '1: "tags" has 2 items, of at most 1. Remove some'),
        ("rings: 13", '1: "rings" is unlucky. Write 12.'),
        ("rings: 14", '1: "rings" cannot be used: fourteen is not allowed.'),
        ("part:\n  kind: leef", '1: "leef" is no known kind of "part". Did you mean "leaf"?'),
        ("part:\n  kind: leaf\n  colour: red", '3: The key "colour" is not known here. Did you'),
        (
            "part:\n  kind: branch\n  leaves:\n    a:\n      colr: red",
            '5: The key "colr" is not known here. Did you mean "color"?',
        ),
    ],
)
def test_any_model_can_be_read(text: str, said: str) -> None:
    (problem,) = problems_of(text, Tree)

    assert problem.startswith(f"my.yaml:{said}")


def test_numbers_truth_values_and_nothing_are_read_where_they_are_wanted() -> None:
    tree = parse_yaml_text("height: 1e-3\nrings: 3\nalive: no\nowner: ~\n", "x", Tree)

    assert (tree.height, tree.rings, tree.alive, tree.owner) == (0.001, 3, False, None)


@pytest.mark.parametrize("digits", ["9" * 10_000, ":".join(["1"] * 100_000)])
def test_a_number_without_end_is_not_computed(digits: str) -> None:
    (said,) = problems_of(f"owner: x\nname: {digits}", Tree)

    assert said.startswith('my.yaml:2: "name" has the wrong form: "')


def test_keys_are_read_as_they_are_written() -> None:
    class Free(BaseModel):
        free: dict[str, str]

    free = parse_yaml_text("free:\n  no: a\n  429: b\n  =: c\n", "x", Free).free

    assert free == {"no": "a", "429": "b", "=": "c"}


def test_a_check_adds_problems_and_is_placed_on_its_line() -> None:
    def find(data: Any) -> Iterator[Finding]:
        yield ("rings",), "Odd.", "Even it."
        yield ("part", "leaves", 3), "Not there.", ""

    with pytest.raises(YamlError) as caught:
        parse_yaml_text("height: 0\nrings: 3\npart:\n  kind: leaf\n", "t", Tree, [find])

    assert [str(problem) for problem in caught.value.problems] == [
        't:1: "height" must be more than 0 (got 0). Change the number.',
        "t:2: Odd. Even it.",
        "t:3: Not there.",
    ]


def test_the_error_survives_copying_and_pickling() -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml_text("height: 0", "t", Tree)

    for twin in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert twin.problems == caught.value.problems
        assert str(twin) == str(caught.value)
