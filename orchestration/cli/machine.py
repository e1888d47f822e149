"""Errors of the machine, in the words of a user: memory, disks and paths."""

from __future__ import annotations

import errno

from policies import AidsafeError, InputError

_NO_MEMORY = {errno.ENOMEM}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_PATH = {
    *(errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL),
}


class MachineError(AidsafeError):
    """The disk or the memory is used up."""


def of_the_machine(error: BaseException) -> AidsafeError | None:
    """What an error means if the machine is its cause; None if it may be aidsafe."""
    if isinstance(error, MemoryError) or _is(error, _NO_MEMORY) or "start new thread" in str(error):
        return MachineError(
            "There is not enough memory.",
            "Use a lower --concurrency or raise the limit (ulimit -v, ulimit -u), and repeat the "
            "command: finished work is stored.",
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    name, why = error.filename, error.strerror
    if _is(error, _NO_ROOM):
        what = "A file" if name is None else str(name)
        return MachineError(f"{what} cannot be written ({why}).", "Make room on the disk.")
    if name is not None and _is(error, _PATH):
        shown = str(name) if len(str(name)) <= 200 else f"{str(name)[:200]}..."
        return InputError(f"{shown} cannot be used ({why}).", "Check the path.")
    return None


def output_failed(error: OSError) -> AidsafeError:
    """The error for a standard output that cannot be written."""
    return MachineError(
        f"Standard output cannot be written ({error.strerror}).",
        "Make room on the disk, and repeat the command.",
    )


def _is(error: BaseException, codes: set[int]) -> bool:
    return isinstance(error, OSError) and error.errno in codes
