"""The device: its sensors over five minutes, everything they say now, and who uses it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content

from rapidctl.console.screens.base import Page
from rapidctl.console.text import clip, line
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.timebar import Timebar
from rapidctl.console.widgets.trend import Trend
from rapidctl.device import frequency, pairs, power, temperature
from rapidctl.out import percent
from rapidctl.wire import DeviceInfo

KEYS = (("?", "help"), ("esc", "back"), ("q", "quit"), ("p", "freeze"), ("[", "back in time"), ("y", "copy"))
DEFAULT_POWER_W = 1000.0
HOTTEST_C = 110.0
FASTEST_HZ = 3e9


def _limit_w(view: View) -> float:
    device = None if view.snapshot is None else view.snapshot.device
    limit_w = None if device is None else device.power_limit_w
    return limit_w if limit_w is not None and limit_w > 0 else DEFAULT_POWER_W


class Sensors(Panel):
    """Everything, one value a line."""

    def title(self, view: View) -> str:  # noqa: D102
        return "DEVICE"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        device = None if view.snapshot is None else view.snapshot.device
        return sensor_lines(device, width)


def sensor_lines(device: DeviceInfo | None, width: int) -> list[Content]:
    """The lines."""
    if device is None:
        return [line(("no engine: no device", "$muted"))]
    return [line((f"{name:<13}", "$label"), clip(value, max(1, width - 13))) for name, value in pairs(device)]


class Device(Page):
    """The device's own screen."""

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Timebar(id="timebar")
        with Container(classes="trends"):
            yield Trend("busy", "utilization", "$decode", top=lambda _: 1.0, text=percent, id="trend-busy")
            yield Trend("power", "power_w", "$prefill", top=_limit_w, text=power, id="trend-power")
        with Container(classes="trends"):
            yield Trend(
                "temperature", "temperature_c", "$prefill", top=lambda _: HOTTEST_C, text=temperature, id="trend-heat"
            )
            yield Trend("clock", "clock_hz", "$decode", top=lambda _: FASTEST_HZ, text=frequency, id="trend-clock")
        yield Sensors(id="sensors")
        yield Keyline(*KEYS)
