"""Which files a source stands for: one, those of a folder, or those that match a pattern."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shlex
from io import BufferedReader
from pathlib import Path

from policies.errors import InputError

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
COMPRESSED = (".gz", ".zst")
KINDS = f"{', '.join(TEXT_KINDS)} (each also with {' or '.join(COMPRESSED)}) or .parquet"

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What can be the name of a Hugging Face data set."""

_SPREADSHEET = ("a spreadsheet", "Save its sheet as CSV in UTF-8, and name that file.")
_ARCHIVE = ("an archive of files", "Unpack it, and name the folder or a file of it.")
_DOCUMENT = ("a document", "Save its prompts as a text file with one a line.")
_PICKLE = (
    "a Python pickle, which can run any code when it is loaded",
    "If you trust it, load it in Python and save its rows as JSONL.",
)
_ARROW = ("an Arrow file", "Save its table as Parquet, and name that file.")
_DATABASE = ("a database", "Export its table as CSV, and name that file.")
_YAML = ("YAML", "Convert it to JSON, and name that file.")
_REFUSED = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), _SPREADSHEET),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".rtf"), _DOCUMENT),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
    **dict.fromkeys((".arrow", ".feather"), _ARROW),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), _DATABASE),
    **dict.fromkeys((".yaml", ".yml"), _YAML),
    ".bz2": ("compressed with bzip2", "Decompress it with bunzip2."),
    ".xz": ("compressed with xz", "Decompress it with unxz."),
}


def kind_of(path: str) -> tuple[str, str]:
    """The suffix that says how rows stand in a file, and that of its compression, if any."""
    name = Path(path.lower())
    if name.suffix not in COMPRESSED:
        return name.suffix, ""
    return name.with_suffix("").suffix, name.suffix


def is_known(path: str) -> bool:
    """Whether a file is of a kind that can be read."""
    kind, compression = kind_of(path)
    return kind in TEXT_KINDS or (kind == ".parquet" and not compression)


def unknown_kind(path: str) -> InputError:
    """The error for a file that is of no kind that can be read."""
    kind, compression = kind_of(path)
    if kind in _REFUSED:
        what, remedy = _REFUSED[kind]
        return InputError(f"{path} is {what}; aidsafe does not read it.", remedy)
    if kind == ".parquet":
        return InputError(
            f"{path} is a compressed Parquet file; Parquet compresses its columns itself.",
            f"Decompress it with {'gunzip' if compression == '.gz' else 'unzstd'}.",
        )
    return InputError(f"{path} is of no kind that can be read.", f"Use {KINDS}.")


def find_files(source: str) -> list[str]:
    """The files of a source, in the order of their names.

    A path is taken for a pattern only if there is no such file.

    Raises:
        InputError: A folder has no file that can be read, or nothing matches a pattern.
    """
    if os.path.isdir(source):
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
        found = [os.path.join(source, n) for n in names if is_known(n) and not n.startswith(".")]
        if not found:
            raise InputError(f"There is no file of prompts in the folder {source}.", _remedy(names))
    elif glob.has_magic(source) and not os.path.lexists(source):
        try:
            matches = glob.glob(source, recursive=True)
        except (ValueError, re.error) as error:
            raise InputError(f"{source} is no pattern of files ({error}).", "Check it.") from error
        found = [path for path in matches if os.path.isfile(path) and is_known(path)]
        if not found:
            raise InputError(
                f"There is no file of prompts that matches {source}.", _remedy(matches)
            )
    else:
        return [source]
    return sorted(found)


def _remedy(names: list[str]) -> str:
    if not names:
        return "Check the path."
    return f"Name another, or one with files of these kinds: {KINDS}."


def fingerprint(source: str) -> str | None:
    """Changes if a file of a source does, or if there are others; None if the source has no files.

    Standard input and Hugging Face data sets have none, whatever files are called like them.
    """
    if source == "-" or source.startswith("hf:"):
        return None
    try:
        files = find_files(source)
        stats = [os.stat(path) for path in files]
    except (InputError, OSError, ValueError):
        return None
    states = [f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats]
    if files == [source]:
        return states[0]
    listed = "\0".join(f"{path}\0{state}" for path, state in zip(files, states, strict=True))
    return hashlib.sha256(os.fsencode(listed)).hexdigest()


def open_file(path: str) -> BufferedReader:
    """Opens a file for reading bytes.

    Raises:
        InputError: It cannot be opened.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        hub = f", or write hf:{path} for the data set" if HUB_NAME.fullmatch(path) else ""
        raise InputError(f"There is no file {path}.", f"Check the path{hub}.") from error
    except (OSError, ValueError) as error:
        what = f"{path} cannot be opened ({getattr(error, 'strerror', error)})."
        raise InputError(what, "Check that it may be read.") from error


def jsonl_name(path: str) -> str:
    """What a JSON file is best called once it is JSONL, quoted for a shell."""
    name = Path(path)
    while name.suffix.lower() in (*COMPRESSED, ".json"):
        name = name.with_suffix("")
    return shlex.quote(f"{name}.jsonl")
