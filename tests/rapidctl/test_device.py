"""How a device's sensors read: units for people, unknown values left out or dashed, and every word also as JSON."""

import msgspec
import pytest
from msgspec.structs import replace

from rapidctl import cli, device, wire
from rapidctl.console.widgets.units import Units
from support import samples
from support.console import desk
from support.peer import Peer

BARE = wire.DeviceInfo(kind="cpu", name="Some CPU", units=2, unit_name="core", memory_total_bytes=None)


def show_status(peer: Peer, shown: wire.DeviceInfo | None) -> list[str]:
    peer.script[wire.GetStatus] = lambda ask: [replace(samples.STATUS, call=ask.call, device=shown)]
    return ["status"]


@pytest.mark.parametrize(("hertz", "text"), [(1.98e9, "1.98 GHz"), (3.45e8, "345 MHz"), (1e9, "1.00 GHz"), (None, "—")])
def test_clocks(hertz: float | None, text: str) -> None:
    assert device.frequency(hertz) == text


def test_sensors_are_a_few_words_and_unknown_ones_are_left_out() -> None:
    assert device.sensor_parts(samples.DEVICE) == ["50% busy", "3.00 GHz", "15 of 65 W", "50 °C"]
    assert device.sensor_parts(replace(BARE, utilization=0.0, power_w=90.4)) == ["0% busy", "90 W"]
    assert device.sensor_parts(BARE) == []


def test_status_has_one_line_of_sensors(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(show_status(peer, samples.DEVICE))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sensors")]
    assert line.split(maxsplit=1)[1] == "50% busy, 3.00 GHz, 15 of 65 W, 50 °C, memory 1.86 GiB of 7.45 GiB"


@pytest.mark.parametrize("shown", [BARE, None], ids=["no sensors", "no device"])
def test_status_says_nothing_of_sensors_where_there_are_none(
    peer: Peer, capsys: pytest.CaptureFixture[str], shown: wire.DeviceInfo | None
) -> None:
    cli.main(show_status(peer, shown))
    assert "sensors" not in capsys.readouterr().out


def test_stats_device_tells_everything(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["stats", "device"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    told = {words[0]: words[1] for words in lines}
    assert told["busy"] == "50%, memory 25%"
    assert told["clock"] == "3.00 GHz, memory 2.60 GHz"
    assert told["slowed"] == "by    power cap"
    assert told["processes"] == "2: 12 (1.4 GiB), 99 (—)"


def test_unknown_is_a_dash_and_nothing_is_said_in_words() -> None:
    told = dict(device.pairs(BARE))
    assert (told["slowed by"], told["processes"], told["power"], told["PCI address"]) == ("—", "—", "—", "—")
    told = dict(device.pairs(replace(BARE, slowdowns=[], processes=[])))
    assert (told["slowed by"], told["processes"]) == ("nothing", "none")


def test_json_carries_the_device_as_it_came(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["stats", "device", "--json"])
    document = msgspec.json.decode(capsys.readouterr().out)
    assert msgspec.convert(document["device"], wire.DeviceInfo) == samples.DEVICE
    assert "kv" not in document
    cli.main([*show_status(peer, samples.DEVICE), "--json"])
    document = msgspec.json.decode(capsys.readouterr().out)
    assert msgspec.convert(document["device_info"], wire.DeviceInfo) == samples.DEVICE


async def test_the_console_has_the_sensors_beside_the_units() -> None:
    async with desk(120, 36) as at:
        title = str(at.app.screen.query_one("#units", Units).border_title)
        assert title == "COMPUTE UNITS 304 CU  97% busy  2.10 GHz  612 of 750 W  61 °C"
