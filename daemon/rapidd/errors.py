"""What can go wrong, as types.

    RapiddError
    ├── ConfigError        a setting is unknown, malformed or impossible; all problems at once   exit 78
    ├── ModelError         weights, tokenizer or architecture cannot be served                   exit 78
    ├── DeviceError        the device is absent, or refuses what was asked of it                 exit 78
    │   └── DeviceLost     it failed while it worked: another process may go on there            exit 1
    ├── EndpointInUse      another daemon serves this endpoint                                   exit 78
    ├── RuntimeDirError    the runtime directory cannot be used (full disk, rights)              exit 78
    ├── ProfileError       a calibrated profile cannot be read, used or written                  exit 78
    └── RequestError       one request is refused; carries a wire error code, never ends a process

Raise these for users; assert for invariants.
"""

from typing import Final

from rapidctl.wire import ErrorCode

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: starting again cannot help; no supervisor and no service manager tries."""


EXIT_DEVICE: Final = 77
"""The device must be reset or replaced: no service manager starts the daemon again by itself."""


class RapiddError(Exception):
    """Base of every error a user can cause. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(RapiddError):
    """``problems``: one line each, with file and key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ModelError(RapiddError):
    """The model folder or file cannot be served."""


class DeviceError(RapiddError):
    """The device cannot do what was asked."""


class DeviceLost(DeviceError):
    """The device failed under what it was given; no setting is to blame."""


class EndpointInUse(RapiddError):
    """Another daemon holds the endpoint's lock."""


class RuntimeDirError(RapiddError):
    """The runtime directory cannot be made or written."""


class ProfileError(RapiddError):
    """A calibrated profile is corrupt, foreign, of another device or model, or cannot be written."""


class RequestError(RapiddError):
    """One request cannot be served; the daemon goes on."""

    def __init__(self, code: ErrorCode, message: str, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint)
        self.code: ErrorCode = code
        self.retry_after_s = retry_after_s


def is_out_of_memory(error: BaseException | None) -> bool:
    """Python's own error, torch's of a GPU, its words of a CPU, or the driver's through torch, cuBLAS or Triton.

    The driver's come where memory is taken that torch does not count: for graphs, kernels and workspaces.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = "out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory"
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
