"""The generator: every instance validates, and equal seeds give equal instances."""

from enum import StrEnum
from random import Random
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.endpoint.schema_reply import SchemaError, draw_instance

SEEDS = range(200)


class Kind(StrEnum):
    BENIGN = "benign"
    HARMFUL = "harmful"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Thought(Strict):
    text: str = Field(min_length=5, max_length=40)
    policy_ids: list[str] = Field(min_length=1, max_length=3)
    kind: Kind
    weight: float = Field(ge=0, le=1)
    above: float = Field(gt=0.5, lt=0.6)
    count: int = Field(gt=2, lt=4)
    at_most: int = Field(le=-5)
    sure: bool
    nothing: None
    maybe: int | str | None = None
    fixed: Literal["thought"] = "thought"
    tags: set[Literal["a", "b", "c"]] = Field(min_length=2)


class Node(Strict):
    name: str
    children: list["Node"]
    parent: "Node | None" = None


class Cat(Strict):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(Strict):
    kind: Literal["dog"] = "dog"
    lives: int


class Reply(Strict):
    thoughts: list[Thought] = Field(min_length=1, max_length=20)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    tree: Node
    scores: dict[str, float]
    verdict: Literal["accept", "revise"]
    anything: Any


@pytest.mark.parametrize("model", [Thought, Node, Reply])
def test_instances_of_pydantic_schemas_validate(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for seed in SEEDS:
        instance = draw_instance(schema, Random(seed))
        validator.validate(instance)
        model.model_validate(instance)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "maxLength": 0},
        {"type": "string", "minLength": 1, "maxLength": 1},
        {"type": "string", "minLength": 9, "maxLength": 9},
        {"type": "string", "minLength": 500},
        {"type": ["string", "null"], "maxLength": 3},
        {"type": "array"},
        {"type": "array", "items": {}, "maxItems": 0},
        {"type": "array", "items": {"type": "integer"}, "minItems": 7},
        {"type": "integer", "minimum": 3, "maximum": 3},
        {"type": "integer", "maximum": 1000},
        {"type": "number", "minimum": 0.25, "maximum": 0.25},
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "boolean"}},
        {"enum": ["a", 1, None]},
        {"const": {"a": [1]}},
        {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"const": 1}}},
    ],
)
def test_instances_at_the_edges_validate(schema: dict[str, Any]) -> None:
    for seed in SEEDS:
        jsonschema.validate(draw_instance(schema, Random(seed)), schema)


def test_equal_seeds_give_equal_instances() -> None:
    schema = Reply.model_json_schema()
    first = [draw_instance(schema, Random(seed)) for seed in range(20)]
    assert first == [draw_instance(schema, Random(seed)) for seed in range(20)]
    assert first[0] != first[1]


def test_strings_are_plain_words() -> None:
    text = draw_instance({"type": "string"}, Random(1))
    assert len(text.split()) >= 3
    assert all(word.isalpha() for word in text.split())


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "^a$"}, "pattern"),
        ({"type": "string", "format": "date"}, "format"),
        ({"$ref": "#/$defs/x", "maxLength": 3, "$defs": {"x": {}}}, "maxLength"),
        ({"$ref": "#/$defs/x"}, "nowhere"),
        ({"$ref": "other.json"}, "other.json"),
        ({"type": "words"}, "words"),
        ({"type": "array", "items": True}, "must be an object"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength"),
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "no integer"),
        ({"type": "number", "minimum": 3, "exclusiveMaximum": 3}, "no number"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"$ref": "#"}, "requires itself"),
        (
            {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
            "different items",
        ),
    ],
)
def test_what_is_unsupported_says_so(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        draw_instance(schema, Random(0))
