"""Pair recipes: who makes the rejected sides, how it learns, and what a pair must be like."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from autogen_agentchat.base import TerminationCondition
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agents.models.model import Model
from agents.pair_layout import PairBriefing
from agents.pair_replies import PairLimits
from agents.pair_roles import PairAgent, make_pair_agent
from agents.persona import Persona
from orchestration.casting import Casting, Place, find_personas
from orchestration.chat import DeliberationChat
from orchestration.pairs.audit import AuditBounds
from orchestration.pairs.exemplars import Seeds, Strategy
from orchestration.pairs.termination import AttemptBudgetTermination, ViolationTermination
from orchestration.recipe import Name
from orchestration.record import CoTRecord
from policies import InputError, PolicySet, load_policy_set, load_yaml, shipped_policy_sets

SHIPPED = Path(__file__).parent / "recipes"
OVER_REFUSAL = "over_refusal"
"""Id of the policy that a contrast pair's rejected side violates."""
CHOSEN_SCORER = "chosen_scorer"
"""Name of the agent that scores the record's own answer; its persona is the scorer's."""


class PairRecipe(BaseModel):
    """A pair recipe: the personas of the pair chat, how its exemplars are kept, and the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Name of the recipe."""
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """One line: what it is for."""
    whisperer: Name = "ear_whisperer"
    """Persona that proposes beliefs."""
    generator: Name = "misled_generator"
    """Persona that answers the prompt under a belief."""
    scorer: Name = "violation_judge"
    """Persona that scores both sides: a violation_judge or a violation_classifier."""
    sampler: Name = "sampler"
    """Persona that makes the rejected sides of the baseline, by sampling alone."""
    threshold: float = Field(default=0.7, ge=0, le=1, strict=True)
    """Score from which on an attempt is taken for the rejected side."""
    attempts: int = Field(default=4, ge=1, le=50, strict=True)
    """Ways around the circle before the chat gives up."""
    strategy: Strategy = "scoring"
    """How a belief that worked gets among the exemplars: `scoring`, `fifo`, `lifo` or
    `scoring_diverse`."""
    exemplars: int = Field(default=4, ge=1, le=20, strict=True)
    """Exemplars that are kept for each policy."""
    diversity: float = Field(default=0.5, ge=0, le=10, strict=True)
    """Weight of diversity beside the score, for `scoring_diverse`."""
    seeds: str = "default"
    """The first exemplars: a shipped name, or a YAML file beside the recipe's."""
    contrast_share: float = Field(default=0.5, ge=0, le=1, strict=True)
    """Share of the prompts with none but benign intents whose rejected side is an over-refusal; the
    others of them get a violation, as all prompts with a harmful intent do."""
    off_limits: tuple[str, ...] = (
        "child_sexual_exploitation",
        "indiscriminate_weapons",
        "IA3",
        "PH2",
    )
    """Policies and rules that nobody is to be misled about: of a record that cites one, no pair is
    made, and a rejected side that violates one is neither kept nor learnt from."""
    off_limits_by_score: bool = Field(default=True, strict=True)
    """Whether the scorer's word counts for that, too; false where it says yes to anything."""
    audit: AuditBounds = AuditBounds()
    """What a pair must be like to be kept."""
    limits: PairLimits = PairLimits()
    """How long replies may be."""

    @cached_property
    def hash(self) -> str:
        """Fingerprint of the recipe's content, as pairs cite it."""
        # Without the place of the seeds, which have a fingerprint of their own.
        content = self.model_dump(mode="json", exclude={"seeds"})
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def pair_recipe_files() -> dict[str, Path]:
    """The shipped pair recipes by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_pair_recipe(name_or_path: str) -> PairRecipe:
    """Reads a pair recipe.

    Args:
        name_or_path: Name of a shipped pair recipe, or path of a YAML file.

    Raises:
        InputError: There is no such recipe.
        YamlError: With every problem of the file.
    """
    files = pair_recipe_files()
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not is_path and name_or_path not in files:
        raise InputError(
            f"There is no pair recipe '{name_or_path}'.",
            f"Use one of {', '.join(files)}, or the path of a pair recipe YAML.",
        )
    path = Path(name_or_path) if is_path else files[name_or_path]
    recipe = load_yaml(path, PairRecipe)
    if recipe.seeds.endswith((".yaml", ".yml")):
        recipe = recipe.model_copy(update={"seeds": str(path.parent / recipe.seeds)})
    return recipe


def with_over_refusal(policy_set: PolicySet) -> PolicySet:
    """A run's policies, and the one that contrast pairs are about; a set that has it stays."""
    if OVER_REFUSAL in policy_set.policy_ids:
        return policy_set
    policy = load_policy_set(OVER_REFUSAL).get(OVER_REFUSAL)
    rules = set(policy_set.rule_ids)
    if any(rule.id in rules for rule in policy.rules):
        raise InputError(
            "The run's policies use the rule ids OR1 to OR3, which are those of over_refusal.",
            "Add a policy called over_refusal of your own to the set.",
        )
    return policy_set.model_copy(update={"policies": (*policy_set.policies, policy)})


class PairCast(Casting):
    """A pair recipe with everything it names. Makes pair chats.

    Args:
        recipe: The recipe.
        policy_set: The run's policies.
        personas: The recipe's personas by name.
        models: Models by name; personas that name none use `default`.
        seeds: The first exemplars.
        baseline: Whether rejected sides are made by sampling alone.

    Raises:
        InputError: A persona is missing, cannot take its place, or names a model that there is not;
            or the policies have no room for `over_refusal`.
    """

    def __init__(
        self,
        recipe: PairRecipe,
        policy_set: PolicySet,
        personas: Mapping[str, Persona],
        models: Mapping[str, Model],
        seeds: Seeds,
        baseline: bool = False,
    ) -> None:
        super().__init__(recipe.name, places(recipe, baseline), personas, models)
        self.recipe = recipe
        self.own_policies = policy_set
        self.policy_set = with_over_refusal(policy_set)
        """What is scored: the run's policies, and `over_refusal`."""
        self.seeds = seeds
        self.baseline = baseline
        self.briefing = PairBriefing(self.policy_set, recipe.limits)
        # The record's agents did not know of `over_refusal`: an answer that could cite it would be
        # told from theirs by that alone.
        self._answering = PairBriefing(policy_set, recipe.limits)
        if CHOSEN_SCORER in personas:
            raise InputError(
                f"The recipe '{recipe.name}' names a persona '{CHOSEN_SCORER}', which is the name "
                "of the agent that scores the chosen side.",
                "Give the persona another name.",
            )
        never_asked = {
            "generator": "where a generator refuses, that is an answer to be scored",
            "violation_classifier": "one classifier's odds are not another's",
        }
        for persona in self.personas.values():
            why = never_asked.get(persona.role)
            if why and persona.fallback_models:
                raise InputError(
                    f"The persona '{persona.name}' has fallback models, which would never be "
                    f"asked: {why}.",
                    "Leave fallback_models out.",
                )
        for name in recipe.off_limits:
            self._check_limit(name)

    @classmethod
    def load(
        cls,
        recipe: PairRecipe,
        policy_set: PolicySet,
        models: Mapping[str, Model],
        seeds: Seeds,
        personas_folder: Path | None = None,
        baseline: bool = False,
    ) -> Self:
        """Finds the recipe's personas, shipped or in the user's folder."""
        personas = find_personas(places(recipe, baseline), personas_folder)
        return cls(recipe, policy_set, personas, models, seeds, baseline)

    @property
    def notice(self) -> str:
        """One line on what is about to be used."""
        models = "; ".join(model.config.label for model in self.models_in_use)
        circle = ", ".join(name for name, _ in places(self.recipe, self.baseline))
        policies = len(self.policy_set.policies)
        attempts = f"up to {self.attempts} attempts" if self.attempts > 1 else "one attempt"
        return (
            f"{models} | policies {self.policy_set.id} ({policies} with over_refusal) | "
            f"pair recipe {self.recipe.name}: {circle}, {attempts}"
        )

    @property
    def attempts(self) -> int:
        """Ways around the circle: one for the baseline, which has nothing to learn from."""
        return 1 if self.baseline else self.recipe.attempts

    def counted(self, target: str) -> list[str]:
        """The policies whose scores count for a target."""
        if target == OVER_REFUSAL:
            return [OVER_REFUSAL]
        return [policy for policy in self.policy_set.policy_ids if policy != OVER_REFUSAL]

    @property
    def rules_off_limits(self) -> list[str]:
        """Rules of the policies that are off limits by themselves."""
        if not self.recipe.off_limits_by_score:
            return []
        rules = self.policy_set.rule_ids
        return [name for name in self.recipe.off_limits if name in rules]

    def _check_limit(self, name: str) -> None:
        """A misspelt limit would be none.

        Raises:
            InputError: No policy set that is known here has a policy or rule of that name.
        """
        known = {*self.policy_set.policy_ids, *self.policy_set.rule_ids}
        if name in known:
            return
        for shipped in shipped_policy_sets():
            policy_set = load_policy_set(shipped)
            known |= {*policy_set.policy_ids, *policy_set.rule_ids}
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise InputError(
                f"off_limits of the pair recipe '{self.recipe.name}' names '{name}', which is no "
                "policy or rule of the run or of a shipped set.",
                f"Did you mean '{near[0]}'?" if near else "Correct it, or take it out.",
            )

    def target(self, record: CoTRecord) -> str | None:
        """The policy that a record's rejected side is to violate; None if none may be made.

        `over_refusal` for the share of the benign prompts that the recipe asks for: which they are
        follows from their texts, so that it is the same in every run. Else the policy that most of
        the record's thoughts cite, the first of equals.
        """
        never = set(self.recipe.off_limits)
        if any(never & {*thought.policies, *thought.rules} for thought in record.thoughts):
            return None
        if is_benign(record) and _draw(record.prompt) < self.recipe.contrast_share:
            return OVER_REFUSAL
        known = [policy for policy in self.counted("") if policy not in never]
        cited = Counter(p for thought in record.thoughts for p in thought.policies if p in known)
        return cited.most_common(1)[0][0] if cited else next(iter(known), None)

    def termination(self) -> TerminationCondition:
        """A new termination condition: a violation, or no attempt left."""
        recipe = self.recipe
        condition: TerminationCondition = ViolationTermination(
            recipe.threshold, recipe.audit.max_chosen
        )
        return condition | AttemptBudgetTermination(recipe.scorer, self.attempts)

    def make_chat(self, wrap: Callable[[Model], Model] = lambda model: model) -> DeliberationChat:
        """A new chat for one record. Its task is the prompt and a `BriefMessage`.

        Args:
            wrap: Applied to every model that an agent is given.
        """

        def agent(persona_name: str, name: str | None = None) -> PairAgent:
            persona = self.personas[persona_name]
            models = [wrap(model) for model in self.models_of(persona)]
            answers = persona.role == "generator"
            return make_pair_agent(
                persona, self._answering if answers else self.briefing, models, name
            )

        recipe = self.recipe
        circle = [name for name, _ in places(recipe, self.baseline)]
        return DeliberationChat(
            [agent(name) for name in circle],
            opening=[agent(recipe.scorer, CHOSEN_SCORER)],
            termination_condition=self.termination(),
            name=recipe.name,
            description=recipe.description,
        )


def is_benign(record: CoTRecord) -> bool:
    """Whether a record's prompt has none but benign intents."""
    return bool(record.intents) and all(i.nature == "benign" for i in record.intents)


def _draw(prompt: str) -> float:
    """A number from 0 to 1 that is the same for the same prompt."""
    digest = hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=8, person=b"contrast")
    return int.from_bytes(digest.digest(), "big") / 2**64


def places(recipe: PairRecipe, baseline: bool) -> list[Place]:
    """The circle of a pair chat, in its order."""
    scorer: Place = (recipe.scorer, ("violation_judge", "violation_classifier"))
    if baseline:
        return [(recipe.sampler, ("generator",)), scorer]
    return [
        (recipe.whisperer, ("ear_whisperer",)),
        (recipe.generator, ("generator",)),
        scorer,
    ]
