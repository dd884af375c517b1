"""Settings that change while the front serves: what it refuses and shows follows them, streams go on."""

from msgspec.structs import replace

from rapidctl.wire import EventList, Failed, Generate, GetEvents, GetStatus, Sampling, Status
from rapidd.config import Config, ServerConfig, SloConfig
from support.front import Rig


def test_queue_bounds_objectives_and_output_bound_change_under_a_running_stream(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("before", prompt="hi")
    rig.front.reload(
        Config(
            server=replace(rig.config.server, max_waiting_requests=1, max_output_tokens=3, snapshot_hz=10.0),
            slo=SloConfig(itl_s=0.125),
        )
    )
    assert peer.ask(GetStatus(call=1), Status).slo.itl_s == 0.125
    peer.send(Generate(id="late", prompt="hi"))
    assert peer.fails().code == "queue_full"
    engine.say(engine.submitted().rid, "ok", "length")
    assert peer.stream()[0] == "ok"
    peer.send(Generate(id="long", prompt="hi", sampling=Sampling(max_tokens=4)))
    refused = peer.fails()
    assert isinstance(refused, Failed)
    assert "server.max-output-tokens" in refused.message
    kinds = {event.kind: event.text for event in peer.ask(GetEvents(call=2), EventList).events}
    assert kinds["config"].startswith("reloaded: server.max-waiting-requests, server.max-output-tokens, ")


def test_a_reload_before_the_first_engine_counts_when_it_comes(rig: Rig) -> None:
    rig.front.reload(Config(server=ServerConfig(max_output_tokens=3), slo=SloConfig(itl_s=0.125)))
    peer, _ = rig.ready()
    assert peer.ask(GetStatus(call=1), Status).slo.itl_s == 0.125
    peer.send(Generate(id="long", prompt="hi", sampling=Sampling(max_tokens=4)))
    assert "server.max-output-tokens" in peer.fails().message
