"""The configuration that the daemon runs on, and the reload that may replace it: at most one at a time.

The engine is asked first, which alone can find a policy illegal. Then the new one is in force here, is written down for
children to come, and is given to the front. Which settings may differ is `reload`'s business.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from rapidd import log
from rapidd.config import Config
from rapidd.errors import ConfigError, RuntimeDirError
from rapidd.ipc import Reload, ReloadDone
from rapidd.paths import RuntimeDir
from rapidd.supervisor import reload
from rapidd.supervisor.child import Child
from rapidd.supervisor.voice import Voice

Load = Callable[[], Config]
"""Reads the configuration again, from where it came from. Raises `ConfigError`."""
Device = Literal["auto", "cpu", "cuda", "hip"]

REFUSED: Final = "reload refused, the old configuration stays"


class InForce:
    """``config``: of this process, and in the directory's file for children that start."""

    def __init__(
        self, config: Config, load: Load, directory: RuntimeDir, *, engine: Child, front: Child, voice: Voice
    ) -> None:
        self._load: Final = load
        self._directory: Final = directory
        self._engine: Final = engine
        self._front: Final = front
        self._voice: Final = voice
        self._offered: Config | None = None
        """To the engine, which has not answered yet."""
        self._take(config)

    def _take(self, config: Config) -> None:
        self.config = config
        log.start(config.log, "supervisor")
        for child in (self._engine, self._front):
            child.watch.limit_s = config.server.hang_timeout_s
            child.load_limit_s = config.server.load_timeout_s

    def settle(self, device: Device) -> None:
        """What "auto" has found stays: a later engine that does not find its GPU is no slower one, but none."""
        if self.config.engine.device == "auto":
            self.config = _on(device, self.config)
            self._write()

    def reload(self, *, serves: bool) -> None:
        """Read the configuration again, and offer it to the engine; not unless the daemon ``serves``."""
        self._voice.reloading()
        try:
            if not serves or self._offered is not None or not self._engine.ready:
                raise ConfigError(["not now: the daemon starts, stops or reloads already; try again when it serves"])
            config = _on(self.config.engine.device, self._load())
            keys = reload.check(self.config, config)
        except ConfigError as error:
            self._refuse(error.problems)
            return
        if keys:
            self._offered = config
            self._engine.tell(Reload(config))
        else:
            self._end("reloaded: nothing has changed")

    def answered(self, problem: str) -> None:
        """The engine took the new configuration over, or found out why nobody can."""
        config, self._offered = self._offered, None
        if config is None:
            return
        if problem:
            self._refuse([problem])
            return
        keys = reload.changed(self.config, config)
        self._take(config)
        self._write()
        self._front.tell(Reload(config))
        self._end(f"reloaded: {', '.join(keys)}")

    def engine_ended(self) -> None:
        """Nobody will answer what was offered."""
        self.answered("the engine ended before it answered")

    def _refuse(self, problems: Sequence[str]) -> None:
        self._front.tell(ReloadDone(f"{REFUSED}: {'; '.join(problems)}", refused=True))
        self._voice.reloaded([f"{REFUSED}: {problem}" for problem in problems], log.error)

    def _end(self, outcome: str) -> None:
        self._front.tell(ReloadDone(outcome, refused=False))
        self._voice.reloaded([outcome], log.info)

    def _write(self) -> None:
        """For children that start from now on. Those that run need no file."""
        try:
            self._directory.write_config(msgspec.json.encode(self.config))
        except RuntimeDirError as error:
            self._voice.say(f"processes that start from now on have the configuration before: {error}", log.warning)


def _on(device: Device, config: Config) -> Config:
    """The configuration with the device that "auto" has found, if it has."""
    if config.engine.device != "auto":
        return config
    return replace(config, engine=replace(config.engine, device=device))
