"""`aidsafe schema`: the JSON Schemas of what aidsafe writes and reads."""

from __future__ import annotations

from pydantic import BaseModel

from agents.models.config import ModelsFile
from agents.persona import Persona
from agents.prompt_texts import prompts_model
from orchestration.cli.console import write_json
from orchestration.cli.options import argument, command
from orchestration.deliberation.recipe import Recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.pairs.exemplars import Seeds
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import PairRecipe
from orchestration.runs.status import Summary
from policies import PolicySet

MODELS: dict[str, type[BaseModel]] = {
    "record": CoTRecord,
    "pair": PreferencePair,
    "policies": PolicySet,
    "persona": Persona,
    "recipe": Recipe,
    "prompts": prompts_model(),
    "models": ModelsFile,
    "summary": Summary,
    "pair-recipe": PairRecipe,
    "seeds": Seeds,
}


@command
def schema(
    name: str = argument(f"One of {', '.join(MODELS)}.", "NAME", choices=list(MODELS)),
) -> None:
    """Print the JSON Schema of a result, the summary, or a YAML file that you edit.

    Example: aidsafe schema record
    """
    write_json(MODELS[name].model_json_schema(mode="serialization"))
