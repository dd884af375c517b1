"""Programs that take long: they run beside the tests, on the core that these leave idle."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence


class Program:
    """Begun when made, at a low priority: a test that needs the processor has it first."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `stop` closes it
        self._process = subprocess.Popen(
            ["nice", *command], env=environment, stdout=self._output, stderr=subprocess.STDOUT
        )

    def result(self, longest_s: float) -> tuple[int, str]:
        """Exit status, and all that it said. Raises TimeoutExpired."""
        status = self._process.wait(longest_s)
        self._output.seek(0)
        return status, self._output.read()

    def stop(self) -> None:
        """For a session that ends early."""
        self._process.kill()
        self._process.wait()
        self._output.close()
