"""`aidsafe schema`: the JSON Schemas of what aidsafe writes and reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from agents.models.model import ModelsFile
from agents.persona import Persona
from orchestration.commands.output import write_json
from orchestration.pairs.exemplars import Seeds
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import PairRecipe
from orchestration.recipe import Recipe
from orchestration.record import CoTRecord
from orchestration.runs.state import Summary
from policies import PolicySet


class SchemaName(StrEnum):
    """What there is a schema of."""

    record = "record"
    pair = "pair"
    policies = "policies"
    persona = "persona"
    recipe = "recipe"
    models = "models"
    summary = "summary"
    pair_recipe = "pair-recipe"
    seeds = "seeds"


_MODELS: dict[SchemaName, type[BaseModel]] = {
    SchemaName.record: CoTRecord,
    SchemaName.pair: PreferencePair,
    SchemaName.policies: PolicySet,
    SchemaName.persona: Persona,
    SchemaName.recipe: Recipe,
    SchemaName.models: ModelsFile,
    SchemaName.summary: Summary,
    SchemaName.pair_recipe: PairRecipe,
    SchemaName.seeds: Seeds,
}


def schema(
    name: Annotated[SchemaName, typer.Argument(help="What to print the schema of.")],
) -> None:
    """Print a JSON Schema: of the record, the summary, or the YAML files that you edit.

    Example: aidsafe schema record
    """
    write_json(_MODELS[name].model_json_schema(mode="serialization"))
