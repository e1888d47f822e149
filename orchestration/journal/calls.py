"""One prompt's replies: those that the journal has are given again, the others are asked for.

An agent of a run is given its model wrapped: a reply that was paid for in an earlier session comes
from the journal, and a new one is on disk before the agent sees it. A chat that was cut off is
therefore simply begun anew, and comes to the first call that is missing without paying for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from autogen_core import CancellationToken
from autogen_core.models import LLMMessage

from agents.models.errors import CallNotBegun
from agents.models.model import Answer, Model
from orchestration.journal.schema import Waiting
from orchestration.journal.store import Journal

_TRANSPORT = {
    "endpoint": {
        "timeout",
        "max_retries",
        "retry_seconds",
        "max_concurrency",
        "min_concurrency",
        "json_fallback",
        "api_key_env",
    },
    "embedded": {"slots", "threads"},
}
"""What of a model's configuration does not shape its replies, and may change within a run."""

_STARTS_KEPT = 16


def shaping(model: Model) -> dict[str, Any]:
    """Of a model's configuration, what shapes its replies."""
    # What is sent with each call is no secret, whatever it is called.
    config = model.config.public() | {"extra": model.config.extra}
    return {
        part: {k: v for k, v in value.items() if k not in _TRANSPORT[part]}
        if part in _TRANSPORT
        else value
        for part, value in config.items()
        if part != "price"
    }


class Keys:
    """Makes the keys of requests; holds what is the same in many of them."""

    def __init__(self) -> None:
        self._models: dict[str, bytes] = {}
        self._starts: dict[str, blake2b] = {}
        self._forms: dict[int, tuple[Mapping[str, Any] | None, bytes]] = {}

    def key(
        self,
        prompt_id: str,
        ordinal: int,
        model: Model,
        messages: Sequence[LLMMessage],
        response_format: Mapping[str, Any] | None,
        sampling: tuple[float | int | None, ...],
    ) -> bytes:
        """The key of a request: 16 bytes, from everything that shapes its reply.

        Args:
            prompt_id: Id of the prompt.
            ordinal: How many calls its chat made before.
            model: The model that is asked, with its endpoint and sampling.
            messages: The whole prompt of the call.
            response_format: The schema of the reply; None for plain text.
            sampling: What the call sets beside the model's own sampling.
        """
        digest: blake2b = self._start(str(messages[0].content)).copy()
        for message in messages[1:]:
            # Lengths in between: no two different conversations may run together into one.
            content = _encode(str(message.content))
            digest.update(b"%b %d:" % (message.type.encode(), len(content)))
            digest.update(content)
        digest.update(self._model(model) + self._form(response_format))
        digest.update(_encode(repr((ordinal, *sampling, messages[0].type, prompt_id))))
        return digest.digest()

    def _start(self, content: str) -> blake2b:
        """The hash after the first message, which is the longest, and the same in all calls."""
        if content not in self._starts:
            if len(self._starts) > _STARTS_KEPT:
                self._starts.clear()
            encoded = _encode(content)
            self._starts[content] = blake2b(b"%d:" % len(encoded) + encoded, digest_size=16)
        return self._starts[content]

    def _model(self, model: Model) -> bytes:
        if model.name not in self._models:
            self._models[model.name] = _hash(shaping(model))
        return self._models[model.name]

    def _form(self, form: Mapping[str, Any] | None) -> bytes:
        # By identity: a run has a handful, and they are megabytes in sum if dumped for every call.
        # The form is kept with its hash, so that no other can come to lie at its address.
        if id(form) not in self._forms:
            self._forms[id(form)] = (form, _hash(form))
        return self._forms[id(form)][1]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hash(data: Any) -> bytes:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True)
    return blake2b(text.encode(), digest_size=16).digest()


class Till(Protocol):
    """Lets calls be made, and is told what they came to."""

    async def begin(self) -> None:
        """A call is to be made. Raises `CallNotBegun` if there is to be none."""

    def end(self) -> None:
        """The call has ended, with a reply or without."""

    def add(self, model: Model, answer: Answer) -> None:
        """Its reply is on disk."""

    def price(self, model: Model) -> str:
        """What the model's tokens cost, as the journal keeps it."""


class NoCalls:
    """A till that lets no call be made: for seeing how far the journal alone leads."""

    async def begin(self) -> None:
        """Raises `CallNotBegun`."""
        raise CallNotBegun

    def end(self) -> None:
        """Is never called."""

    def add(self, model: Model, answer: Answer) -> None:
        """Is never called."""

    def price(self, model: Model) -> str:
        """Is never called."""
        return ""


class ChatLog:
    """The replies of one prompt's chat.

    Args:
        journal: Where they are kept.
        keys: Makes the keys of the run.
        till: Lets new calls be made.
        prompt: The prompt. One that was taken up again is asked anew with another seed.
    """

    def __init__(
        self,
        journal: Journal,
        keys: Keys,
        till: Till,
        prompt: Waiting,
    ) -> None:
        self._journal = journal
        self._keys = keys
        self._till = till
        self._prompt = prompt
        self._answers = journal.answers(prompt.chat)
        self.had = len(self._answers)
        """Replies that the journal had when the chat began."""
        self.replayed = 0
        """Replies that came from the journal."""
        self.asked = 0
        """Replies that were paid for now."""
        self._calls = 0
        self._wrapped: dict[str, Model] = {}

    def wrap(self, model: Model) -> Model:
        """The model as the chat's agents use it."""
        if model.name not in self._wrapped:
            self._wrapped[model.name] = _Journalled(model, self)
        return self._wrapped[model.name]

    async def ask(
        self,
        model: Model,
        messages: Sequence[LLMMessage],
        *,
        response_format: Mapping[str, Any] | None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cancellation_token: CancellationToken | None = None,
        reseed: int = 0,
        logprobs: int = 0,
    ) -> Answer:
        """The reply to a request, from the journal or from the model. See `Model.ask`.

        Raises:
            CallNotBegun: No further call is to be made.
            EndpointError: There was no reply.
            JournalError: There was one, and it could not be kept.
        """
        # What was not asked for is left out, so that keys stay as they were before it was known.
        sampling = (temperature, max_tokens, reseed, *([logprobs] if logprobs else []))
        ordinal, self._calls = self._calls, self._calls + 1
        key = self._keys.key(self._prompt.id, ordinal, model, messages, response_format, sampling)
        answer = self._answers.pop(key, None)
        if answer is not None:
            self.replayed += 1
            return answer
        await self._till.begin()
        try:
            answer = await model.ask(
                messages,
                response_format=response_format,
                temperature=temperature,
                max_tokens=max_tokens,
                cancellation_token=cancellation_token,
                # An agent asks the same twice at most: two seeds for every try.
                reseed=reseed + 2 * self._prompt.tries,
                logprobs=logprobs,
            )
            self.asked += 1
            price = self._till.price(model)
            await self._journal.keep_call(self._prompt.chat, key, model.name, price, answer)
        finally:
            self._till.end()
        self._till.add(model, answer)
        return answer


class _Journalled(Model):
    """A model whose replies are kept."""

    def __init__(self, inner: Model, log: ChatLog) -> None:
        # Not the parent's: everything but `ask` is the inner model's business.
        self.name = inner.name
        self.config = inner.config
        self._inner = inner
        self._log = log

    async def ask(self, messages: Sequence[LLMMessage], **options: Any) -> Answer:
        return await self._log.ask(self._inner, messages, **options)
