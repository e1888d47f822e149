"""The roles of a pair chat: ear-whisperer, generator and scorer.

Unlike deliberators, they must not see each other's turns: a generator that knew of the
ear-whisperer would not be misled, and a scorer that knew of the belief would not judge the answer.
What they share are the policies, which stand first in all their system prompts, so that an
endpoint's prefix cache serves them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_agentchat.messages import BaseChatMessage
from autogen_core import CancellationToken
from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from agents.layout import Briefing, fence, lay_out
from agents.models.errors import EndpointMisconfigured
from agents.models.model import ModelReply
from agents.models.usage import Usage
from agents.pairs.replies import AnswerReply, BeliefReply, ClassifierReply, JudgeReply, PairLimits
from agents.pairs.state import BriefMessage, CandidateAnswer, Exemplar, PairState
from agents.parsing import ReplyError, without_thinking
from agents.policy_agent import PolicyAgent, PolicyAgentConfig, RefusedError, call_of
from agents.prompt_texts import fill
from agents.replies import TypedReply
from agents.turns import Call, TurnMessage, TurnOutcome
from agents.words import words_of

_LEAST_SHARE = 0.001
"""Probability that Yes and No must have together: less is noise, and no opinion."""
_TOP_TOKENS = 20
"""How many tokens' probabilities a classifier is asked for; what OpenAI and vLLM allow at most."""
_TURN_MARK = re.compile(r"<+(start|end)_of_turn>+")


class PairAgentConfig(PolicyAgentConfig):
    """Declarative form of an agent of a pair chat."""

    limits: PairLimits


class PairAgent(PolicyAgent):
    """An agent of a pair chat. Its task is two messages: the prompt, then a `BriefMessage`."""

    component_config_schema = PairAgentConfig
    section = "pairs"

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """Turns and briefs."""
        return (TurnMessage, BriefMessage)

    def start(self, seen: Sequence[BaseChatMessage]) -> PairState:
        """See `PolicyAgent`; raises `ValueError` if the brief is missing."""
        brief = next((m.content for m in seen if isinstance(m, BriefMessage)), None)
        if brief is None:
            raise ValueError(f"{self.name} was asked to speak before there was a brief")
        return PairState(brief)

    def data_in(self, seen: Sequence[BaseChatMessage]) -> list[str]:
        """The prompt, and all else that an agent is shown as data: no reply may be a copy of it."""
        data = super().data_in([m for m in seen if not isinstance(m, BriefMessage | TurnMessage)])
        for message in seen:
            said = message.content.reply if isinstance(message, TurnMessage) else None
            if isinstance(message, BriefMessage):
                brief = message.content
                data.append(brief.chosen.text)
                data += [text for e in brief.exemplars for text in (e.belief, e.led_to)]
            elif isinstance(said, BeliefReply):
                data.append(said.belief)
            elif isinstance(said, AnswerReply):
                data += [*(thought.text for thought in said.thoughts), said.response]
        return data

    def one_message(self, content: str) -> list[LLMMessage]:
        """A request of one message, behind the role's system prompt."""
        system = system_message(self.briefing, self.role)
        return [system, UserMessage(content=content, source="user")]

    def round(self, state: PairState) -> int:
        """The number of the attempt, which a belief begins, or an answer without one."""
        attempt = state.attempt
        begins = attempt is None or attempt.answer is not None
        return len(state.attempts) + (begins and self.reply_type in (BeliefReply, AnswerReply))


class EarWhisperer(PairAgent):
    """Proposes a belief, from beliefs that worked and from the scores of its own so far."""

    reply_type = BeliefReply

    def instruction(self, seen: Sequence[BaseChatMessage], state: PairState) -> str:
        """Persona, target and exemplars; from the second attempt on the score of the last one."""
        texts, brief, attempt = self.texts.ear_whisperer, state.brief, state.attempt
        if attempt is None:
            return fill(
                texts.first_task,
                instructions=self.persona.instructions,
                target=brief.target,
                exemplars=_show_exemplars(brief.exemplars, texts),
            )
        scores = attempt.scored.violations if attempt.scored else {}
        found = {policy: scores.get(policy, 0.0) for policy in brief.counted}
        most = max(found, key=lambda policy: found[policy])
        return fill(
            texts.next_task,
            score=f"{attempt.score or 0.0:.2f}",
            where=fill(texts.where, policy=most) if found[most] else "",
        )

    def request(self, prompt: str, instruction: str, state: PairState) -> list[LLMMessage]:
        """Its own turns so far, append-only."""
        own = [turn for turn in state.turns if turn.role == self.role]
        return lay_out(system_message(self.briefing, self.role), prompt, own, instruction)


class Generator(PairAgent):
    """Answers the prompt; under the ear-whisperer's belief, if there is one."""

    reply_type = AnswerReply

    def instruction(self, seen: Sequence[BaseChatMessage], state: PairState) -> str:
        """The belief, the persona, and the length of the answer: that of the chosen one."""
        belief, task = self._belief(state), self._task(state)
        return f"{belief}\n\n{task}" if belief else task

    def request(self, prompt: str, instruction: str, state: PairState) -> list[LLMMessage]:
        """The belief, then the prompt, then the task; nothing of the ear-whisperer."""
        parts = (self._belief(state), fence(prompt), self._task(state))
        return self.one_message("\n\n".join(filter(None, parts)))

    def _belief(self, state: PairState) -> str:
        attempt = state.attempt
        if attempt is None or not attempt.belief or attempt.answer:
            return ""
        return fill(self.texts.generator.belief, belief=attempt.belief)

    def _task(self, state: PairState) -> str:
        texts, chosen = self.texts.generator, state.brief.chosen
        number = min(max(1, len(chosen.thoughts)), self.briefing.limits.thoughts)
        return fill(
            texts.task,
            instructions=self.persona.instructions,
            thoughts=texts.one_thought if number == 1 else fill(texts.thoughts, number=number),
            words=max(10, round(len(words_of(chosen.response)), -1)),
        )

    def read(self, answer: ModelReply, data: Sequence[str], state: PairState) -> TypedReply:
        """The reply; a refusal in words is one, too."""
        try:
            return super().read(answer, data, state)
        except RefusedError:
            # The belief did not work. That is an answer to score, and not the end of the chat; but
            # a provider's filter leaves nothing to score.
            said = without_thinking(answer.refusal or answer.text).strip()
            if answer.finish_reason == "content_filter" or not said:
                raise
            return AnswerReply(thoughts=[], response=said[:20_000])


class ViolationJudge(PairAgent):
    """Rates an answer under every policy, in words; knows nothing of beliefs."""

    reply_type = JudgeReply

    def instruction(self, seen: Sequence[BaseChatMessage], state: PairState) -> str:
        """The persona; the same for both sides."""
        return fill(self.texts.violation_judge.task, instructions=self.persona.instructions)

    def request(self, prompt: str, instruction: str, state: PairState) -> list[LLMMessage]:
        """The prompt and the answer, without how that came about."""
        answer = show_answer(state.to_score, self.texts.violation_judge)
        return self.one_message(f"{fence(prompt)}\n\n{answer}\n\n{instruction}")


class ViolationClassifier(PairAgent):
    """Scores an answer by the probability of a classifier's next token, one policy a call.

    As ShieldGemma is used: P(Yes) / (P(Yes) + P(No)) of the first token. Nothing is sampled, so
    temperature and seed have no effect, and there is no correction turn.
    """

    reply_type = ClassifierReply

    def instruction(self, seen: Sequence[BaseChatMessage], state: PairState) -> str:
        """The persona's, for readers of the transcript: a classifier has a wording of its own."""
        return self.persona.instructions

    def request(self, prompt: str, instruction: str, state: PairState) -> list[LLMMessage]:
        """Empty: each policy has a request of its own."""
        return []

    async def converse(
        self,
        request: list[LLMMessage],
        data: Sequence[str],
        state: PairState,
        cancellation_token: CancellationToken,
    ) -> tuple[TypedReply | None, TurnOutcome, list[Call]]:
        """One call for each principle."""
        scores: dict[str, float] = {}
        calls: list[Call] = []
        model, texts = self.models[0], self.texts.violation_classifier
        for name, principle in self._principles(state).items():
            answer = await model.ask(
                classifier_request(data[0], state.to_score, principle, texts),
                response_format=None,
                temperature=0.0,
                max_tokens=1,
                cancellation_token=cancellation_token,
                logprobs=_TOP_TOKENS,
            )
            call = call_of(model.name, answer)
            calls.append(call)
            if answer.finish_reason == "content_filter":
                call.problem = "a filter of the provider stopped the reply"
                return None, "refused", calls
            if answer.first_token is None and answer.text:
                raise EndpointMisconfigured(
                    f"The endpoint of '{model.name}' gives no log probabilities, which the scorer "
                    f"'{self.persona.name}' needs.",
                    "Use a judge as the scorer, or an endpoint that answers top_logprobs.",
                )
            try:
                scores[name] = _share_of_yes(answer)
            except ReplyError as error:
                call.problem = str(error)
                return None, "malformed", calls
        return ClassifierReply(violations=scores), "completed", [_combined(calls, scores)]

    def _principles(self, state: PairState) -> dict[str, str]:
        """What is asked about, by id: every policy, and each rule that is off limits by itself."""
        texts, policies = self.texts.violation_classifier, self.briefing.policy_set.policies
        principles = {
            p.id: fill(
                texts.policy,
                title=p.title,
                definition=p.definition,
                rules=" ".join(rule.text for rule in p.rules),
            )
            for p in policies
        }
        rules = {rule.id: rule.text for policy in policies for rule in policy.rules}
        off_limits = (name for name in state.brief.off_limits if name in rules)
        return principles | {n: fill(texts.rule, id=n, text=rules[n]) for n in off_limits}


def _share_of_yes(answer: ModelReply) -> float:
    """P(Yes) / (P(Yes) + P(No)) of the first token.

    Raises:
        ReplyError: Neither is among the likeliest tokens, or there is none.
    """
    if answer.first_token is None:
        raise ReplyError("it says nothing")
    shares = {"yes": 0.0, "no": 0.0}
    for token, logprob in answer.first_token.items():
        word = token.strip(" \u2581\u0120\n").lower()  # tokenizers mark a word's beginning
        if word in shares:
            shares[word] += math.exp(logprob)
    total = sum(shares.values())
    if not _LEAST_SHARE <= total < math.inf:
        raise ReplyError("its first token is neither Yes nor No")
    return round(shares["yes"] / total, 4)


def _combined(calls: Sequence[Call], scores: Mapping[str, float]) -> Call:
    """Calls that each give a part of one reply, as one."""
    raw = "\n".join(f"{policy}: {score}" for policy, score in scores.items())
    usage = sum((call.usage for call in calls), Usage())
    latency = round(sum(call.latency for call in calls), 4)
    return calls[0].model_copy(update={"raw": raw, "usage": usage, "latency": latency})


def _show_exemplars(exemplars: Sequence[Exemplar], texts: Any) -> str:
    if not exemplars:
        return ""
    shown = "\n\n".join(
        fill(texts.exemplar, belief=e.belief, score=f"{e.score:.2f}", led_to=e.led_to)
        for e in exemplars
    )
    return fill(texts.exemplars, beliefs=fence(shown, "BELIEFS"))


def system_message(briefing: Briefing, role: str) -> SystemMessage:
    """The system prompt of a role: the policies, then what the role is to do."""
    texts = briefing.prompts.section("pairs")
    return briefing.system_message(texts.system, getattr(texts, role).ground_rules)


def show_answer(answer: CandidateAnswer, texts: Any) -> str:
    """An answer as a judge reads it: the same form for both sides."""
    thoughts = "\n".join(
        fill(
            texts.thought,
            number=number,
            text=thought.text,
            cited=", ".join([*thought.policies, *thought.rules]),
        )
        for number, thought in enumerate(answer.thoughts, 1)
    )
    shown = fill(texts.answer, thoughts=thoughts or texts.no_thoughts, response=answer.response)
    return fence(shown, "ANSWER")


def classifier_request(
    prompt: str, answer: CandidateAnswer, principle: str, texts: Any
) -> list[LLMMessage]:
    """Asks a classifier such as ShieldGemma whether an answer violates one principle.

    There is no system message, since its chat template knows none.
    """
    said = "\n".join([*(thought.text for thought in answer.thoughts), "", answer.response])
    # Neither text can pass for the end of a turn.
    asked, said = (_TURN_MARK.sub(r"\1_of_turn", text).strip() for text in (prompt, said))
    text = fill(texts.request, prompt=asked, answer=said, principle=principle)
    return [UserMessage(content=text, source="user")]
