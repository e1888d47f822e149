"""What the reader of prompts promises of Hugging Face data sets."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from orchestration.prompts import hub as hub_module
from orchestration.prompts.reader import PromptReader
from policies.errors import InputError

# Hugging Face -------------------------------------------------------------------------------------


class FakeHub:
    """Stands in for the libraries `datasets` and `huggingface_hub`."""

    class HfHubHTTPError(OSError):
        pass

    def __init__(self) -> None:
        self.rows: Callable[[], Iterator[dict[str, object]]] = lambda: iter([])
        self.ping: Callable[[], None] = lambda: None
        self.calls: list[tuple[Any, ...]] = []

    def dataset_info(self, name: str, timeout: float) -> None:
        self.ping()

    def load_dataset(
        self, name: str, config: str | None, *, split: str, streaming: bool
    ) -> Iterator[dict[str, object]]:
        self.calls.append((name, config, split, streaming))
        return self.rows()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    datasets: Any = types.ModuleType("datasets")
    datasets.load_dataset = fake.load_dataset
    client: Any = types.ModuleType("huggingface_hub")
    client.HfApi = lambda: fake
    client.errors = fake
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return fake


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:owner/name", ("owner/name", None, "train", True)),
        ("hf:owner/name:config", ("owner/name", "config", "train", True)),
        ("hf:owner/name:config:test", ("owner/name", "config", "test", True)),
        ("hf:owner/name::test", ("owner/name", None, "test", True)),
    ],
)
def test_a_data_set_is_streamed(source: str, call: tuple[Any, ...], hub: FakeHub) -> None:
    hub.rows = lambda: iter([{"prompt": "a", "n": np.int64(1)}, {"prompt": "b", "n": None}])
    prompts = list(PromptReader(source))
    assert [(prompt.text, prompt.metadata) for prompt in prompts] == [
        ("a", {"n": 1}),
        ("b", {"n": None}),
    ]
    assert hub.calls == [call]


@pytest.mark.parametrize(
    "source", ["hf:", "hf:name", "hf:../secrets", "hf:/etc/passwd", "hf:a/b/c"]
)
def test_what_is_no_data_set_id_is_refused(source: str, hub: FakeHub) -> None:
    with pytest.raises(InputError, match="does not name a Hugging Face data set"):
        PromptReader(source)
    assert hub.calls == []


def test_without_a_connection_the_data_set_fails_at_once(hub: FakeHub) -> None:
    def offline() -> None:
        raise ConnectionError("Name or service not known\nand a long story")

    hub.ping = offline
    with pytest.raises(InputError) as caught:
        PromptReader("hf:owner/name")
    assert caught.value.cause == (
        "hf:owner/name: the data set cannot be read (Name or service not known)."
    )
    assert "connection" in caught.value.remedy
    assert hub.calls == []


def test_an_unknown_data_set_gives_the_library_s_reason(hub: FakeHub) -> None:
    def unknown() -> Any:
        raise FileNotFoundError("Dataset 'owner/name' doesn't exist on the Hub.")

    def not_found() -> None:
        raise hub.HfHubHTTPError("404")

    hub.ping, hub.rows = not_found, unknown
    with pytest.raises(InputError, match=r"\(Dataset 'owner/name' doesn't exist on the Hub\)"):
        PromptReader("hf:owner/name")


def test_a_hub_that_hangs_is_given_up(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "HUB_PATIENCE_SECONDS", 0.01)
    answer = threading.Event()

    def hang() -> None:
        answer.wait()

    hub.ping = hang
    with pytest.raises(InputError, match=r"no answer within 0\.01 seconds"):
        PromptReader("hf:owner/name")
    assert not answer.is_set()
    answer.set()


def test_a_data_set_that_breaks_off_names_the_last_row(hub: FakeHub) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"prompt": "a"}
        yield {"prompt": "b"}
        raise OSError

    hub.rows = rows
    reader = PromptReader("hf:owner/name")
    assert [next(reader).text, next(reader).text] == ["a", "b"]
    with pytest.raises(InputError, match=r"^hf:owner/name, row 2: .*\(OSError\)"):
        next(reader)


def test_an_empty_data_set_fails_at_once(hub: FakeHub) -> None:
    with pytest.raises(InputError, match="no prompts"):
        PromptReader("hf:owner/name")
