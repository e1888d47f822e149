"""One chat's replies: those that the journal has are used again, the others are called for.

An agent of a run gets its model wrapped: a reply that was paid for in an earlier session comes from
the journal, and a new one is on disk before the agent sees it. A chat that was interrupted is
therefore simply started again, and reaches the first missing call without paying for any other.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

from autogen_core.models import LLMMessage

from agents.models.errors import EndpointError
from agents.models.model import ChatModel, ModelReply
from agents.models.usage import Usage
from orchestration.journal import Journal, ModelSpend, PendingPrompt, Transaction
from orchestration.journal.errors import explained
from orchestration.runs.call_gate import AdmittedCall, CallGate

T = TypeVar("T")
AroundCall: TypeAlias = Callable[[ChatModel, Awaitable[ModelReply]], Awaitable[ModelReply]]

_TRANSPORT = {
    "endpoint": (
        *("timeout", "max_retries", "retry_seconds", "max_concurrency", "min_concurrency"),
        *("rate_limit", "json_fallback", "api_key_env", "api_key_header", "headers", "query"),
    ),
    "embedded": ("slots", "threads"),
}
"""Parts of a model's configuration that do not shape its replies, and may change within a run."""


def shaping(model: ChatModel) -> dict[str, Any]:
    """The parts of a model's configuration that shape its replies."""
    # What is sent with each call is no secret, whatever its name.
    config = model.config.public() | {"extra": model.config.extra}
    for part, names in _TRANSPORT.items():
        if part in config:
            config[part] = {k: v for k, v in config[part].items() if k not in names}
    return {part: value for part, value in config.items() if part != "price"}


class RequestKeys:
    """Makes the keys of requests; caches what is the same in many of them."""

    def __init__(self) -> None:
        self._hashes: dict[int, tuple[object, bytes]] = {}

    def key(
        self,
        prompt_id: str,
        ordinal: int,
        model: ChatModel,
        messages: Sequence[LLMMessage],
        response_format: Mapping[str, Any] | None,
        sampling: tuple[float | int | None, ...],
    ) -> bytes:
        """The key of a request: 16 bytes, from everything that shapes its reply.

        Args:
            prompt_id: Id of the prompt.
            ordinal: How many calls its chat made before.
            model: The model that is called, with its endpoint and sampling.
            messages: The whole prompt of the call.
            response_format: The schema of the reply; None for plain text.
            sampling: What the call sets beside the model's own sampling.
        """
        digest: blake2b = _start(str(messages[0].content)).copy()
        for message in messages[1:]:
            # With lengths: no two different conversations may run together into one.
            content = _encode(str(message.content))
            digest.update(b"%b %d:" % (message.type.encode(), len(content)))
            digest.update(content)
        digest.update(self._hash(model, shaping) + self._hash(response_format))
        digest.update(_encode(repr((ordinal, *sampling, messages[0].type, prompt_id))))
        return digest.digest()

    def _hash(self, of: T, data: Callable[[T], Any] = lambda of: of) -> bytes:
        # By identity: a run has a handful, and dumping one takes longer than all the rest. The
        # object is stored with its hash, so that no other can take its address.
        if id(of) not in self._hashes:
            text = json.dumps(data(of), sort_keys=True, ensure_ascii=True)
            self._hashes[id(of)] = (of, blake2b(text.encode(), digest_size=16).digest())
        return self._hashes[id(of)][1]


@lru_cache(maxsize=16)
def _start(content: str) -> blake2b:
    """The hash after the first message, which is the longest, and the same in all calls."""
    encoded = _encode(content)
    return blake2b(b"%d:" % len(encoded) + encoded, digest_size=16)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class ChatReplies:
    """The replies of one prompt's chat.

    Args:
        journal: Where they are stored.
        keys: Makes the keys of the run.
        gate: Admits new calls.
        prompt: The prompt. One that is retried is called for with another seed.
        around_call: Wraps every call of a model, as telemetry does.
    """

    def __init__(
        self,
        journal: Journal,
        keys: RequestKeys,
        gate: CallGate,
        prompt: PendingPrompt,
        around_call: AroundCall = lambda _, call: call,
    ) -> None:
        self._journal = journal
        self._keys = keys
        self._gate = gate
        self._prompt = prompt
        self._around_call = around_call
        with explained(journal.path):
            self._stored = {key: load_reply(text) for key, text in journal.replies(prompt.chat)}
        self.stored = len(self._stored)
        """Replies that the journal had when the chat began."""
        self.replayed = 0
        """Replies that came from the journal."""
        self.called = 0
        """Replies that were paid for now."""
        self.used_keys: list[bytes] = []
        """Keys of the replies that the chat has used, in order."""
        self._calls = 0
        self._wrapped: dict[str, ChatModel] = {}

    def wrap(self, model: ChatModel) -> ChatModel:
        """The model as the chat's agents use it."""
        if model.name not in self._wrapped:
            self._wrapped[model.name] = _JournalledModel(model, self)
        return self._wrapped[model.name]

    async def ask(
        self, model: ChatModel, messages: Sequence[LLMMessage], reseed: int = 0, **options: Any
    ) -> ModelReply:
        """The reply to a request, from the journal or from the model. See `ChatModel.ask`.

        Raises:
            CallNotStarted: No further call may start.
            EndpointError: There was no reply.
            JournalError: The reply could not be stored.
        """
        # What was not asked for is left out, so that keys do not change when options are added.
        more = [options["logprobs"]] if options.get("logprobs") else []
        sampling = (options.get("temperature"), options.get("max_tokens"), reseed, *more)
        form, ordinal = options["response_format"], self._calls
        self._calls += 1
        key = self._keys.key(self._prompt.id, ordinal, model, messages, form, sampling)
        reply = self._stored.pop(key, None)
        if reply is not None:
            self.replayed += 1
            self.used_keys.append(key)
            return reply
        with await self._gate.begin(model, messages, options.get("max_tokens")) as admitted:
            # An agent makes the same request twice at most: two seeds for every try.
            call = model.ask(messages, reseed=reseed + 2 * self._prompt.tries, **options)
            try:
                reply = await self._around_call(model, call)
            except EndpointError as error:
                if error.unusable or error.abandoned:
                    await self._journal.write(partial(_add_unusable, call=admitted, of=error))
                    admitted.paid(None, error.billed, error.unusable, error.abandoned)
                raise
            self.called += 1
            await self._journal.write(partial(self._store, key=key, call=admitted, reply=reply))
            self.used_keys.append(key)
            admitted.paid(reply.usage, reply.billed, reply.unusable, reply.abandoned)
        return reply

    def _store(self, tx: Transaction, key: bytes, call: AdmittedCall, reply: ModelReply) -> None:
        usage, chat = reply.usage, self._prompt.chat
        tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        counted = (*tokens, usage.estimated_tokens)
        tx.store_reply(chat, key, call.model.name, call.price, dump_reply(reply), counted)
        if reply.unusable or reply.abandoned:
            _add_unusable(tx, call, reply)


def _add_unusable(tx: Transaction, call: AdmittedCall, of: ModelReply | EndpointError) -> None:
    """Enters what was or may have been paid for, besides the reply."""
    used = of.billed
    tokens = (used.prompt_tokens, used.completion_tokens, used.cached_tokens)
    counted = (*tokens, used.estimated_tokens, of.unusable, of.abandoned)
    tx.add_spend(ModelSpend(call.model.name, call.price, of.unusable, *counted))


class _JournalledModel:
    """A `ChatModel` whose replies are stored."""

    def __init__(self, inner: ChatModel, replies: ChatReplies) -> None:
        self.name = inner.name
        self.config = inner.config
        self._inner = inner
        self._replies = replies

    async def ask(self, messages: Sequence[LLMMessage], **options: Any) -> ModelReply:
        return await self._replies.ask(self._inner, messages, **options)


def dump_reply(reply: ModelReply) -> str:
    """A reply as the journal stores it, without the fields that are None."""
    usage = reply.usage
    data = {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "tokens": [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens],
        "latency": round(reply.latency, 4),
        "refusal": reply.refusal,
        "served_model": reply.served_model,
        "json_as": reply.json_as,
        "adapted": reply.adapted or None,
        "attempts": reply.attempts,
        "first_token": reply.first_token,
        "estimated": usage.estimated_tokens or None,
    }
    data = {name: value for name, value in data.items() if value is not None}
    text = json.dumps(data, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which SQLite does not take
        return json.dumps(data)
    return text


def load_reply(text: str) -> ModelReply:
    """The reply that `dump_reply` dumped."""
    data = json.loads(text)
    prompt, completion, cached = data.pop("tokens")
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        estimated_tokens=data.pop("estimated", 0),
    )
    adapted = tuple(data.pop("adapted", ()))
    return ModelReply(usage=usage, adapted=adapted, **data)
