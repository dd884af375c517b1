"""Settings that change while the front serves: what it refuses and shows follows them, streams go on."""

from msgspec.structs import replace

from rapidctl.wire import (
    ControlReply,
    EventList,
    Failed,
    Generate,
    GetEvents,
    GetStatus,
    Reload,
    Sampling,
    Status,
)
from rapidd import ipc
from rapidd.config import Config, PolicyConfig, ServerConfig, SloConfig
from support.front import Peer, Rig


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


def test_a_reload_before_the_first_engine_counts_when_it_comes(rig: Rig) -> None:
    rig.front.reload(Config(server=ServerConfig(max_output_tokens=3), slo=SloConfig(itl_s=0.125)))
    peer, _ = rig.ready()
    assert peer.ask(GetStatus(call=1), Status).slo.itl_s == 0.125
    peer.send(Generate(id="long", prompt="hi", sampling=Sampling(max_tokens=4)))
    assert "server.max-output-tokens" in peer.fails().message


def test_requests_without_hope_are_refused_from_the_reload_on(rig: Rig) -> None:
    """50 tokens at 10 a second: 5 s, where the objective is 2 s."""
    peer, engine = rig.ready()
    engine.state(prefill_tokens_per_s=10.0)
    rig.until(lambda: rig.front.link.state is not None)
    peer.generate("taken", prompt="x" * 50)
    rig.front.reload(replace(rig.config, policy=PolicyConfig(refuse_hopeless=True)))
    peer.send(Generate(id="late", prompt="x" * 50))
    assert peer.fails().code == "queue_full"


def test_an_operator_asks_for_a_reload_and_an_event_tells_what_became_of_it(rig: Rig) -> None:
    """The supervisor makes it; the front passes the wish on, and the outcome back."""
    peer, _ = rig.ready()
    assert peer.ask(Reload(call=1, by="ana"), ControlReply).call == 1
    assert rig.wishes() == [ipc.AskReload()]
    rig.front.reload_done("reload refused, the old configuration stays: no", True)
    event = peer.ask(GetEvents(call=2), EventList).events[-1]
    assert (event.kind, event.level) == ("config", "error")
    assert "the old configuration stays" in event.text


def test_who_may_not_command_may_not_reload(rig: Rig) -> None:
    rig.ready()
    guest = Peer(rig)
    guest.hello(control=False)
    guest.send(Reload(call=1))
    assert guest.fails().code == "not_permitted"
    assert rig.wishes() == []
