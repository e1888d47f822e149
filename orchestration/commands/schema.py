"""`aidsafe schema`: the JSON Schemas of what aidsafe writes and reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from agents.models.model import ModelsFile
from agents.persona import Persona
from orchestration.commands.output import write_json
from orchestration.recipe import Recipe
from orchestration.record import CoTRecord
from orchestration.runs.state import Summary
from policies import PolicySet


class SchemaName(StrEnum):
    """What there is a schema of."""

    record = "record"
    policies = "policies"
    persona = "persona"
    recipe = "recipe"
    models = "models"
    summary = "summary"


_MODELS: dict[SchemaName, type[BaseModel]] = {
    SchemaName.record: CoTRecord,
    SchemaName.policies: PolicySet,
    SchemaName.persona: Persona,
    SchemaName.recipe: Recipe,
    SchemaName.models: ModelsFile,
    SchemaName.summary: Summary,
}


def schema(
    name: Annotated[SchemaName, typer.Argument(help="What to print the schema of.")],
) -> None:
    """Print a JSON Schema: of the record, the summary, or the YAML files that you edit.

    Example: aidsafe schema record
    """
    write_json(_MODELS[name].model_json_schema(mode="serialization"))
