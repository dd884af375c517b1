"""`rapidctl run`: what is sent, and the answer as text and as JSON lines."""

from itertools import count

import pytest
from msgspec.structs import replace

from rapidctl import generation, wire
from rapidctl.client import Client
from rapidctl.commands.run import Silence
from rapidctl.out import Out
from rapidctl.wire import Accepted, Deltas, Failed, Generate
from support import samples
from support.command import Rapidctl
from support.peer import Peer


def test_run_sends_every_sampling_parameter(peer: Peer, rapidctl: Rapidctl) -> None:
    words = (
        "run Hi --max-tokens 9 --min-tokens 2 --temperature 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 "
        "--repetition-penalty 1.1 --presence-penalty 0.2 --frequency-penalty 0.3 --seed 7 --stop END --stop . "
        "--stop-token-id 2 --n 2 --logprobs 1 --system Brief --ignore-eos --priority 3 --deadline 1m --id mine "
        "--slo-class batch"
    )
    assert rapidctl(*words.split()).code == 0
    assert peer.hear(Generate) == Generate(
        id="mine",
        messages=[wire.ChatMessage("system", "Brief"), wire.ChatMessage("user", "Hi")],
        sampling=wire.Sampling(
            temperature=0.5,
            top_k=4,
            top_p=0.9,
            min_p=0.1,
            repetition_penalty=1.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            seed=7,
            max_tokens=9,
            min_tokens=2,
            stop_token_ids=[2],
            ignore_eos=True,
            logprobs=1,
        ),
        n=2,
        stop=["END", "."],
        priority=3,
        deadline_s=60.0,
        slo_class="batch",
    )
    assert rapidctl("run", "--no-chat", "raw").code == 0
    raw = peer.hear(Generate)
    assert (raw.prompt, raw.messages, raw.sampling) == ("raw", None, wire.Sampling())


def test_run_sends_a_bare_prompt_to_a_model_without_a_chat_template(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, has_chat_template=False)]
    ran = rapidctl("run", "Once upon", "--json")
    raw = peer.hear(Generate)
    assert (ran.code, raw.prompt, raw.messages) == (0, "Once upon", None)
    assert "no chat template" in ran.stderr
    rapidctl("run", "Once upon", "--system", "Be brief.")
    chat = peer.hear(Generate)
    assert chat.prompt is None, "a system message is not dropped: the daemon refuses it and says why"
    assert [message.role for message in chat.messages or ()] == ["system", "user"]


def test_run_json_ends_with_the_documented_line(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("run", "Hi", "--json")
    assert [line["type"] for line in ran.documents] == ["accepted", "tokens", "finished"]
    assert ran.documents[1]["token_ids"] == [504, 2]
    last = ran.documents[-1]
    expected = {
        "text": "The",
        "token_ids": [504, 2],
        "finish_reason": "stop",
        "prompt_tokens": 14,
        "output_tokens": 2,
        "ttft_s": 0.12,
        "mode": "split",
    }
    assert last.items() >= expected.items()
    assert last["itl_s"].items() >= {"p50": 0.0101, "p95": 0.0202, "max": 0.0404}.items()
    assert ran.stderr == ""


def test_run_streams_text_to_stdout_and_timing_to_stderr(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("run", "Hi")
    assert ran.stdout == "The\n"
    assert "TTFT 120 ms" in ran.stderr


def test_model_output_cannot_drive_the_terminal(peer: Peer, rapidctl: Rapidctl) -> None:
    evil = replace(samples.DELTA, text="a\x1b[2J\x9b31m\x07b\n\tc\r")
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        Deltas(items=[replace(evil, id=ask.id)]),
        replace(samples.FINISHED, id=ask.id),
    ]
    assert rapidctl("run", "Hi").stdout == "a[2J31mb\n\tc\n"
    assert rapidctl("run", "Hi", "--json").documents[1]["text"] == evil.text


def test_several_choices_are_shown_one_after_the_other(peer: Peer, rapidctl: Rapidctl) -> None:
    choices = [replace(samples.FINISHED.choices[0], index=index, text=text) for index, text in enumerate("AB")]
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        replace(samples.FINISHED, id=ask.id, choices=choices),
    ]
    assert rapidctl("run", "Hi", "--n", "2").stdout == "--- choice 0 (stop)\nA\n--- choice 1 (stop)\nB\n"


def test_a_run_that_fails_keeps_what_it_had(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        Deltas(items=[replace(samples.DELTA, id=ask.id)]),
        Failed(code="engine_lost", message="the engine died", id=ask.id),
    ]
    ran = rapidctl("run", "Hi")
    assert (ran.code, ran.stdout) == (1, "The\n")
    assert "the engine died" in ran.stderr
    lines = rapidctl("run", "Hi", "--json").documents
    assert lines[-1].items() >= {"type": "failed", "code": "engine_lost", "output_tokens": 2}.items()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("engine_lost", "\nrapidctl: waiting: engine lost\n"),
        ("serving", ""),  # a long prompt takes its time
    ],
)
def test_run_says_why_nothing_comes_when_it_is_not_the_model(
    state: wire.DaemonState, said: str, peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that waited for the next engine looked like a command that hung."""
    monkeypatch.setattr(generation, "SILENCE_S", 60.0)
    text = Out.text

    def then_impatient(out: Out, shown: str, end: str = "\n") -> None:
        text(out, shown, end)
        monkeypatch.setattr(generation, "SILENCE_S", 0.05)

    monkeypatch.setattr(Out, "text", then_impatient)
    peer.script[wire.Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=14, seed=42), Deltas(items=[replace(samples.DELTA, id=ask.id)])
    ]  # fmt: skip
    status = replace(samples.STATUS, state=state)
    asked = count(1)
    peer.script[wire.GetStatus] = lambda ask: [
        replace(status, call=ask.call), *([replace(samples.FINISHED, id="mine")] if next(asked) == 3 else [])
    ]  # fmt: skip
    ran = rapidctl("run", "--id", "mine", "Hi")
    assert ran.code == 0
    assert ran.stdout == samples.DELTA.text + "\n"
    before, _, _ = ran.stderr.partition("[")
    assert before == said, "once, however long it lasts"


def test_a_daemon_that_is_away_is_told_and_not_asked(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    out = Out(json=False, color="never")
    with Client(peer.endpoint) as client:
        silence = Silence(client, out, lambda: False)
        silence()
        peer.stop()
        while client.connected:
            client.poll(1.0)
        silence()
        silence()
    assert capsys.readouterr().err == "rapidctl: waiting: the daemon is away\n"
