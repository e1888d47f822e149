"""Pair recipes: the personas, learning and audit of pair chats; `PairCast` makes the chats."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from agents.layout import Briefing
from agents.models.model import Model
from agents.pairs.agents import PairAgent
from agents.pairs.replies import PairLimits
from agents.pairs.state import CHOSEN_SCORER, OVER_REFUSAL, PairBrief, answer_of
from agents.prompt_texts import PROMPTS, PromptTexts, find_prompts
from orchestration.chat.cast import BaseCast, BaseRecipe, Part, Personas, WrapModel
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.deliberation.record import CoTRecord
from orchestration.pairs.audit import AuditBounds
from orchestration.pairs.exemplars import SEEDS, Seeds, Strategy
from orchestration.pairs.termination import AttemptBudgetTermination, ViolationTermination
from policies import InputError, PolicySet, YamlFiles, load_policy_set, shipped_policy_sets
from policies.yaml_model import Name


class PairRecipe(BaseRecipe):
    """A pair recipe: the personas of a pair chat, how exemplars are updated, and the audit."""

    unhashed: ClassVar[tuple[str, ...]] = ("seeds", "prompts")

    whisperer: Name = "ear_whisperer"
    """Persona that proposes beliefs."""
    generator: Name = "misled_generator"
    """Persona that answers the prompt under a belief."""
    scorer: Name = "violation_judge"
    """Persona that scores both sides: a violation_judge or a violation_classifier."""
    sampler: Name = "sampler"
    """Persona that makes the rejected sides of the baseline, by sampling alone."""
    threshold: float = Field(default=0.7, ge=0, le=1, strict=True)
    """Score from which an attempt becomes the rejected side."""
    attempts: int = Field(default=4, ge=1, le=50, strict=True)
    """Maximum number of attempts in a chat."""
    strategy: Strategy = "scoring"
    """How a belief that worked becomes an exemplar: `scoring`, `fifo`, `lifo` or
    `scoring_diverse`."""
    exemplars: int = Field(default=4, ge=1, le=20, strict=True)
    """Exemplars of each policy."""
    diversity: float = Field(default=0.5, ge=0, le=10, strict=True)
    """Weight of diversity beside the score, for `scoring_diverse`."""
    seeds: str = "default"
    """The first exemplars: a shipped name, or a YAML file beside the recipe's."""
    contrast_share: float = Field(default=0.5, ge=0, le=1, strict=True)
    """Share of the prompts with only benign intents whose rejected side is an over-refusal; the
    other rejected sides violate a policy."""
    off_limits: tuple[str, ...] = (
        "child_sexual_exploitation",
        "indiscriminate_weapons",
        "IA3",
        "PH2",
    )
    """Policies and rules that no bad answer is made about: a record that cites one gets no
    pair, and a pair with an attempt that violates one is neither kept nor learnt from."""
    off_limits_by_score: bool = Field(default=True, strict=True)
    """Whether the scores of attempts count for that; false if the scorer says yes to anything."""
    prompts: str = "default"
    """Task texts of the agents: a shipped name, or a YAML file beside the recipe's."""
    audit: AuditBounds = AuditBounds()
    """Bounds that a pair must meet to be kept."""
    limits: PairLimits = PairLimits()
    """How long replies may be."""


PAIR_RECIPES = YamlFiles(
    "pair recipe",
    Path(__file__).parent / "recipes",
    lambda: PairRecipe,
    names={"prompts": PROMPTS, "seeds": SEEDS},
)
load_pair_recipe = PAIR_RECIPES.load


def with_over_refusal(policy_set: PolicySet) -> PolicySet:
    """Adds the policy that contrast pairs violate to a policy set, unless it has one of that id."""
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


class PairCast(BaseCast):
    """A pair recipe with everything it names. Makes pair chats.

    Args:
        recipe: The recipe.
        policy_set: The run's policies.
        models: Models by name; personas that name none use `default`.
        seeds: The first exemplars.
        personas: See `Cast`.
        baseline: Whether rejected sides are made by sampling alone.
        prompts: Prompt texts; those that the recipe names if left out.

    Raises:
        InputError: A persona is missing, has the wrong role, or names an unknown model; or
            `over_refusal` cannot be added to the policies.
    """

    agent_type = PairAgent

    def __init__(
        self,
        recipe: PairRecipe,
        policy_set: PolicySet,
        models: Mapping[str, Model],
        seeds: Seeds,
        personas: Personas | None = None,
        baseline: bool = False,
        prompts: PromptTexts | None = None,
    ) -> None:
        prompts = prompts or find_prompts(recipe.prompts)
        scored = Briefing(with_over_refusal(policy_set), recipe.limits, prompts)
        super().__init__(recipe, _parts(recipe, baseline), scored, models, personas)
        self.recipe: PairRecipe = recipe
        self.own_policies = policy_set
        self.seeds = seeds
        self.baseline = baseline
        self.attempts = 1 if baseline else recipe.attempts
        """Maximum number of attempts; the baseline has nothing to learn from a failed one."""
        # The record's agents were not shown `over_refusal`: citing it would give a side away.
        self._own_briefings["generator"] = Briefing(policy_set, recipe.limits, prompts)
        self._check_personas()
        self._check_off_limits()

    def _check_personas(self) -> None:
        no_fallback = {
            "generator": "if a generator refuses, that is an answer to be scored",
            "violation_classifier": "scores of different classifiers cannot be compared",
        }
        for persona in self.personas.values():
            why = no_fallback.get(persona.role)
            if why and persona.fallback_models:
                raise InputError(
                    f"The persona '{persona.name}' has fallback models, which would never be "
                    f"called: {why}.",
                    "Leave fallback_models out.",
                )

    def _check_off_limits(self) -> None:
        """Checks that every name exists: a misspelt one would have no effect."""
        known = {*self.policy_set.policy_ids, *self.policy_set.rule_ids}
        if known.issuperset(self.recipe.off_limits):
            return
        for shipped in map(load_policy_set, shipped_policy_sets()):
            known |= {*shipped.policy_ids, *shipped.rule_ids}
        for name in (name for name in self.recipe.off_limits if name not in known):
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise InputError(
                f"off_limits of the pair recipe '{self.recipe.name}' names '{name}', which is "
                "no policy or rule of the run or of a shipped set.",
                f"Did you mean '{near[0]}'?" if near else "Correct it, or remove it.",
            )

    @property
    def notice(self) -> str:
        """One line on what will be used."""
        models = "; ".join(model.config.label for model in self.models_in_use)
        circle = ", ".join(self._names)
        policies = len(self.policy_set.policies)
        attempts = f"up to {self.attempts} attempts" if self.attempts > 1 else "one attempt"
        return (
            f"{models} | policies {self.policy_set.id} ({policies} with over_refusal) | "
            f"pair recipe {self.recipe.name}: {circle}, {attempts}"
        )

    def target(self, record: CoTRecord) -> str | None:
        """The policy that a record's rejected side is to violate; None if none may be made.

        For the recipe's share of the benign prompts that is `over_refusal`: their texts decide
        which, so that they are the same in every run. Otherwise it is the policy that most of the
        record's thoughts cite, the first of equals.
        """
        never = set(self.recipe.off_limits)
        if never & cited_in(record):
            return None
        if is_benign(record) and draw(record.prompt, b"contrast") < self.recipe.contrast_share:
            return OVER_REFUSAL
        policies = [p for p in self.policy_set.policy_ids if p not in {OVER_REFUSAL, *never}]
        cited = Counter(p for thought in record.thoughts for p in thought.policies if p in policies)
        return cited.most_common(1)[0][0] if cited else next(iter(policies), None)

    def brief(self, record: CoTRecord) -> PairBrief:
        """What a pair chat about a record is given, without exemplars."""
        target = self.target(record) or ""
        is_contrast = target == OVER_REFUSAL
        rules = self.policy_set.rule_ids if self.recipe.off_limits_by_score else ()
        return PairBrief(
            kind="over_refusal" if is_contrast else "violation",
            target=target,
            counted=[p for p in self.policy_set.policy_ids if (p == OVER_REFUSAL) == is_contrast],
            benign=is_benign(record),
            chosen=answer_of(record),
            off_limits=[name for name in self.recipe.off_limits if name in rules],
        )

    def make_chat(self, wrap: WrapModel = lambda model: model) -> DeliberationChat:
        """A new chat for one record. Its task is the prompt and a `BriefMessage`."""
        recipe = self.recipe
        violation = ViolationTermination(recipe.threshold, recipe.audit.max_chosen)
        budget = AttemptBudgetTermination([recipe.scorer], self.attempts)
        return DeliberationChat(
            [self.make_agent(name, wrap) for name in self._names],
            opening=[self.make_agent(recipe.scorer, wrap, CHOSEN_SCORER)],
            termination_condition=violation | budget,
            name=recipe.name,
            description=recipe.description,
        )


def is_benign(record: CoTRecord) -> bool:
    """Whether a record's prompt has only benign intents."""
    return bool(record.intents) and all(i.nature == "benign" for i in record.intents)


def cited_in(record: CoTRecord) -> set[str]:
    """Every policy and rule that any turn of a record cites, in thoughts that were dropped too."""
    found = {name for t in record.thoughts for name in (*t.policies, *t.rules)}
    for removed in record.removed_thoughts:
        found.update(removed.thought.policies, removed.thought.rules)
    for turn in record.turns:
        if turn.reply is not None:
            _collect_cited(turn.reply.model_dump(mode="json"), found)
    return found


def _collect_cited(node: Any, found: set[str]) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("policies", "rules") and isinstance(value, list):
                found.update(map(str, value))
            else:
                _collect_cited(value, found)
    elif isinstance(node, list):
        for item in node:
            _collect_cited(item, found)


def draw(text: str, purpose: bytes) -> float:
    """A number from 0 to 1 that is always the same for a text and a purpose."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, person=purpose)
    return int.from_bytes(digest.digest(), "big") / 2**64


def _parts(recipe: PairRecipe, baseline: bool) -> list[Part]:
    """The circle of a pair chat, in its order."""
    scorer: Part = (recipe.scorer, ("violation_judge", "violation_classifier"))
    if baseline:
        return [(recipe.sampler, ("generator",)), scorer]
    return [(recipe.whisperer, ("ear_whisperer",)), (recipe.generator, ("generator",)), scorer]
