"""How a worker of a lane tells the loop, which sleeps, that a batch is done."""

import os


class Wake:
    """A descriptor that workers write to when a batch is done."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """For pollers."""
        return self._fd

    def set(self) -> None:
        """From any thread."""
        os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Before looking for what happened."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
