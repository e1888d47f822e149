"""Draws JSON instances from the subset of JSON Schema that pydantic emits.

A schema is compiled once into nested closures, so that drawing costs little per reply. What the
subset leaves out (`pattern`, `format`, `prefixItems`, `allOf`, …) is an error, never a guess.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from math import ceil, floor, inf
from random import Random
from typing import Any

Schema = dict[str, Any]
Draw = Callable[[Random, int], Any]
"""Draws an instance from a generator, at a depth (how many containers are around it)."""

_WORDS_TEXT = """
answer careful check clear consider context each evidence explain fair first follow general give
harm help honest intent keep kind limit listen matter name note offer open person plain point
policy prompt question reason request respect rule safe say share show simple state step support
think thought true use user weigh word
"""
WORDS = _WORDS_TEXT.split()

_DEEP = 5
"""From this depth on, instances are kept as small as the schema allows: recursion must end."""

_ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "discriminator"),
    *("$defs", "$schema", "$id", "readOnly", "writeOnly"),
}
_COMBINING = {"$ref", "anyOf", "oneOf"}
_KEYWORDS = {
    *("type", "enum", "const", "properties", "required", "additionalProperties"),
    *("items", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


class SchemaError(ValueError):
    """The schema is outside the supported subset, or no finite instance satisfies it."""


def draw_instance(schema: Schema, rng: Random) -> Any:
    """Return an instance that validates against `schema`; equal generators give equal instances.

    Raises:
        SchemaError: The schema uses an unsupported keyword or cannot be satisfied.
    """
    return _compile(json.dumps(schema))(rng, 0)


def draw_words(rng: Random, low: int, high: int) -> str:
    """Return `low` to `high` plain words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


@lru_cache(maxsize=256)
def _compile(schema_json: str) -> Draw:
    schema = json.loads(schema_json)
    compiler = _Compiler(schema)
    if compiler.height(schema) == inf:
        raise SchemaError("no finite instance satisfies the schema: it requires itself")
    return compiler.draw(schema)


class _Compiler:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._refs: dict[str, Draw] = {}

    def height(self, schema: Schema, open_refs: frozenset[str] = frozenset()) -> float:
        """Return how many containers the flattest instance nests; inf if it can never end."""
        if not isinstance(schema, dict):
            return 0  # No schema at all; drawing it says so.
        if ref := schema.get("$ref"):
            if ref in open_refs:  # The flattest instance never needs a definition inside itself.
                return inf
            return self.height(self._resolve(ref), open_refs | {ref})
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return min(self.height(branch, open_refs) for branch in branches)
        if "enum" in schema or "const" in schema:
            return 0
        if schema.get("type") == "object":
            properties = schema.get("properties", {})
            required = [properties.get(name, {}) for name in schema.get("required", [])]
            return max((1 + self.height(one, open_refs) for one in required), default=0)
        if schema.get("type") == "array" and schema.get("minItems", 0) > 0:
            return 1 + self.height(schema.get("items", {}), open_refs)
        return 0

    def draw(self, schema: Schema) -> Draw:
        """Return the closure that draws instances of `schema`."""
        if not isinstance(schema, dict):
            raise SchemaError(f"a schema must be an object (got {schema!r})")
        combining = _COMBINING & schema.keys()
        known = _ANNOTATIONS | combining if len(combining) == 1 else _ANNOTATIONS | _KEYWORDS
        if unknown := schema.keys() - known:
            raise SchemaError(f"unsupported in a JSON schema: {', '.join(sorted(unknown))}")
        if "$ref" in schema:
            return self._ref(schema["$ref"])
        if combining:
            return self._any_of(schema[combining.pop()])
        if "const" in schema:
            const = schema["const"]
            return lambda rng, depth: const
        if "enum" in schema:
            values = schema["enum"]
            return lambda rng, depth: rng.choice(values)
        kind = schema.get("type", "string")
        if isinstance(kind, list):
            return self._any_of([{**schema, "type": one} for one in kind])
        return self._typed(kind, schema)

    def _typed(self, kind: str, schema: Schema) -> Draw:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return _string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return lambda rng, depth: rng.random() < 0.5
            case "null":
                return lambda rng, depth: None
        raise SchemaError(f"unknown type in a JSON schema: {kind!r}")

    def _resolve(self, ref: str) -> Schema:
        if not ref.startswith("#"):
            raise SchemaError(f"$ref must point into the schema itself (got {ref!r})")
        target: Any = self._root
        for step in ref.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or step not in target:
                raise SchemaError(f"$ref points nowhere: {ref!r}")
            target = target[step]
        resolved: Schema = target
        return resolved

    def _ref(self, ref: str) -> Draw:
        refs = self._refs
        if ref not in refs:
            # The look-up goes in first, since the definition may refer to itself.
            refs[ref] = lambda rng, depth: refs[ref](rng, depth)
            refs[ref] = self.draw(self._resolve(ref))
        return lambda rng, depth: refs[ref](rng, depth)

    def _any_of(self, branches: list[Schema]) -> Draw:
        if not branches:
            raise SchemaError("anyOf and oneOf need at least one branch")
        finite = [branch for branch in branches if self.height(branch) < inf]
        draws = [self.draw(branch) for branch in sorted(finite, key=self.height)]

        def draw(rng: Random, depth: int) -> Any:
            return (draws[0] if depth >= _DEEP else rng.choice(draws))(rng, depth)

        return draw

    def _object(self, schema: Schema) -> Draw:
        required = set(schema.get("required", []))
        properties: Schema = schema.get("properties", {})
        extra = schema.get("additionalProperties", False)
        if missing := required - properties.keys():
            raise SchemaError(f"required but not among properties: {', '.join(sorted(missing))}")
        # Optional properties are always there too, unless that would nest without end. (Tags of
        # unions are often optional constants; leaving them out makes the branches overlap.)
        always, shallow = [], []
        for name, inner in properties.items():
            height = self.height(inner)
            if height < inf:
                part = (name, self.draw(inner))
                shallow.append(part)
                if name in required or height == 0:
                    always.append(part)
        extra_draw = self.draw(extra) if isinstance(extra, dict) and extra else None

        def draw(rng: Random, depth: int) -> Schema:
            parts = always if depth >= _DEEP else shallow
            instance = {name: part(rng, depth + 1) for name, part in parts}
            if extra_draw and depth < _DEEP:
                for name in rng.sample(WORDS, rng.randint(1, 3)):
                    if name not in properties:
                        instance[name] = extra_draw(rng, depth + 1)
            return instance

        return draw

    def _array(self, schema: Schema) -> Draw:
        low = schema.get("minItems", 0)
        high = min(schema.get("maxItems", inf), low + 3)
        unique = schema.get("uniqueItems", False)
        items: Schema = schema.get("items", {})
        if high < low:
            raise SchemaError(f"maxItems must be >= minItems (got {high} < {low})")
        if self.height(items) == inf:
            high = 0  # Nothing finite can stand in it, so it stays empty.
        item = self.draw(items)

        def draw(rng: Random, depth: int) -> list[Any]:
            count = low if depth >= _DEEP else rng.randint(low, int(high))
            if not unique:
                return [item(rng, depth + 1) for _ in range(count)]
            found: dict[str, Any] = {}
            for _ in range(100 * count):
                one = item(rng, depth + 1)
                found.setdefault(json.dumps(one, sort_keys=True), one)
                if len(found) == count:
                    break
            if len(found) < low:
                raise SchemaError(f"found only {len(found)} different items of {low}")
            return list(found.values())

        return draw


def _string(schema: Schema) -> Draw:
    low = schema.get("minLength", 0)
    high = schema.get("maxLength")
    if high is not None and high < low:
        raise SchemaError(f"maxLength must be >= minLength (got {high} < {low})")

    def draw(rng: Random, depth: int) -> str:
        text = draw_words(rng, 3, 12)
        while len(text) < low:
            text += " " + draw_words(rng, 3, 12)
        if high is not None and len(text) > high:
            end = text.rfind(" ", max(low, 1), high + 1)  # Whole words, if the bounds allow.
            text = text[: end if end > 0 else high]
            if text.endswith(" "):
                text = text[:-1] + "s"
        return text

    return draw


def _number(schema: Schema, *, whole: bool) -> Draw:
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    low = max(lows) if lows else min([0, *(high - 100 for high in highs)])
    high = min(highs) if highs else low + 100
    if whole:
        first = floor(low) + 1 if low == schema.get("exclusiveMinimum") else ceil(low)
        last = ceil(high) - 1 if high == schema.get("exclusiveMaximum") else floor(high)
        if last < first:
            raise SchemaError(f"no integer lies between {low} and {high}")
        return lambda rng, depth: rng.randint(first, last)
    if high < low or (high == low and {"exclusiveMinimum", "exclusiveMaximum"} & schema.keys()):
        raise SchemaError(f"no number lies between {low} and {high}")
    # Hundredths of the way, never the ends: they may be excluded.
    return lambda rng, depth: low + (high - low) * rng.randint(1, 99) / 100
