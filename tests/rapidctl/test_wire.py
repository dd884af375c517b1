"""Public messages: frames of every release stay readable, and bad frames get the refusal that fits."""

import ast
import math
import os
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import WireError, decode_request
from support import goldens, messages, samples


def encode(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def refusal(frame: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_request(frame)
    return caught.value


# --- golden frames ----------------------------------------------------------------------------------------------


def test_every_message_type_has_a_sample() -> None:
    assert {type(message) for message in messages.REQUESTS.values()} == set(get_args(wire.Request))
    assert {type(message) for message in messages.REPLIES.values()} == set(get_args(wire.Reply))


def test_this_version_still_writes_and_reads_its_golden_frames() -> None:
    stored = {path.name: path.read_bytes() for path in (goldens.FOLDER / goldens.VERSION).iterdir()}
    assert stored == goldens.frames()


def test_a_partition_of_an_older_daemon_tells_no_groups_and_no_bounds() -> None:
    fields = msgspec.msgpack.decode(wire.encode(samples.PARTITION))
    del fields["groups"], fields["bounds"], fields["chunk_limit"]
    assert wire.decode_reply(encode(fields)) == replace(samples.PARTITION, groups=None, bounds=None, chunk_limit=None)


def test_a_profile_of_an_older_daemon_tells_no_margin_and_no_short_contexts() -> None:
    fields = msgspec.msgpack.decode(wire.encode(samples.PARTITION))
    del fields["calibration"]["margin"], fields["calibration"]["short_contexts"]
    older = replace(samples.CALIBRATION, margin=None, short_contexts={})
    assert wire.decode_reply(encode(fields)) == replace(samples.PARTITION, calibration=older)


@pytest.mark.parametrize(
    "path", sorted(goldens.FOLDER.glob("*/*.bin")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_frames_of_every_release_decode(path: Path) -> None:
    decode = {
        "request": wire.decode_request,
        "reply": wire.decode_reply,
        "published_snapshot": wire.decode_snapshot,
        "published_event": wire.decode_event,
    }[path.stem if path.stem.startswith("published") else path.stem.partition("_")[0]]
    decoded = decode(path.read_bytes())
    if path.parent.name == goldens.VERSION:
        expected: dict[str, object] = {f"request_{name}": sample for name, sample in messages.REQUESTS.items()}
        expected |= {f"reply_{name}": sample for name, sample in messages.REPLIES.items()}
        expected |= {"published_snapshot": samples.SNAPSHOT, "published_event": samples.EVENT}
        assert decoded == expected[path.stem]


def test_unknown_fields_of_a_newer_daemon_are_skipped() -> None:
    newer = msgspec.msgpack.decode(wire.encode(samples.WELCOME)) | {"novelty": [1]}
    assert wire.decode_reply(encode(newer)) == samples.WELCOME


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((f"sampling.{name}", value) for name in msgspec.structs.asdict(wire.Sampling()) for value in ("no", [1.5])),
        *(
            (f"sampling.{name}", value)
            for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
            for value in (math.nan, math.inf, -math.inf, -101.0)
        ),
        ("deadline_s", math.nan),
        ("deadline_s", 0.0),
        ("n", 0),
        ("n", wire.MAX_CHOICES + 1),
        ("sampling.max_tokens", 0),
        ("sampling.seed", -1),
        ("sampling.seed", 2**63),
        ("sampling.logprobs", wire.MAX_LOGPROBS + 1),
        ("sampling.stop_token_ids", [0] * (wire.MAX_STOP_TOKENS + 1)),
        ("stop", ["x"] * (wire.MAX_STOP_STRINGS + 1)),
        ("stop[0]", [""]),
        ("id", ""),
        ("id", "x" * (wire.MAX_ID_CHARS + 1)),
        ("slo_class", "best"),
        ("messages[0].role", [{"role": "", "content": "x"}]),
    ],
)
def test_a_bad_field_is_an_invalid_request_that_names_the_field(path: str, value: object) -> None:
    body: dict[str, object] = {"kind": "generate", "id": "r-1", "prompt": "x"}
    head, _, rest = path.partition(".")
    body[head.partition("[")[0]] = {rest: value} if head == "sampling" else value
    error = refusal(encode(body))
    assert error.code == "invalid_request"
    assert str(error).startswith(f"{path}: ") or str(error).startswith(f"{path}[")
    if path != "id":
        assert error.id == "r-1"


def test_no_request_takes_nan_or_infinity_anywhere() -> None:
    for name, message in messages.REQUESTS.items():
        body = msgspec.msgpack.decode(wire.encode(message))
        for part in (body, body.get("sampling", {})):
            for key in [key for key, value in part.items() if isinstance(value, float)]:
                for bad in (math.nan, math.inf, -math.inf):
                    kept, part[key] = part[key], bad
                    assert refusal(encode(body)).code == "invalid_request", (name, key)
                    part[key] = kept


def test_a_misspelt_field_is_named() -> None:
    error = refusal(encode({"kind": "getstatus", "call": 4, "cal": 5}))
    assert (error.code, error.call) == ("invalid_request", 4)
    assert "cal" in str(error)


def test_an_unknown_kind_is_told_apart_and_correlated() -> None:
    error = refusal(encode({"kind": "teleport", "call": 7, "id": "r-9", "speed": 1}))
    assert (error.code, error.call, error.id) == ("unknown_kind", 7, "r-9")
    assert "teleport" in str(error)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"plain text",
        encode(None),
        encode([1, 2]),
        encode({1: 2}),
        encode({}),
        encode({"kind": 3}),
        encode({"kind": ["ping"]}),
        encode({"kind": "ping"}) + b"\x00",
        wire.encode(wire.Ping())[:-1],
        b"\x81\xa4kind\xa2\xff\xfe",
        b"\x91" * 1000 + b"\xc0",
        b"\x82\xa4kind\xa8generate\xa5tools" + b"\x91" * 1000 + b"\xc0",
    ],
)
def test_what_is_no_message_is_malformed(frame: bytes) -> None:
    assert refusal(frame).code == "malformed"


def test_invalid_utf8_is_malformed_and_still_correlated() -> None:
    error = refusal(b"\x83\xa4kind\xa8generate\xa2id\xa3r-1\xa6prompt\xa2\xff\xfe")
    assert (error.code, error.id) == ("malformed", "r-1")
    assert "UTF-8" in str(error)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else_happens(frame: bytes) -> None:
    assert refusal(frame).code in ("malformed", "unknown_kind")


@given(st.sampled_from(sorted(messages.REQUESTS)), st.data())
def test_mutated_requests_decode_or_are_refused(name: str, data: st.DataObject) -> None:
    frame = bytearray(wire.encode(messages.REQUESTS[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                frame[at] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[max(1, at) :]
            case _:
                frame[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        message = decode_request(bytes(frame))
    except WireError as error:
        outcome: str = error.code
    else:
        outcome = type(message).__name__
    assert outcome in {
        "malformed",
        "unknown_kind",
        "invalid_request",
        *(kind.__name__ for kind in get_args(wire.Request)),
    }


@given(st.binary(max_size=200))
def test_unreadable_replies_are_wire_errors(frame: bytes) -> None:
    for decode in (wire.decode_reply, wire.decode_snapshot, wire.decode_event):
        with pytest.raises(WireError):
            decode(frame)


# --- token ids and endpoints --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_token_ids_travel_unchanged(ids: list[int]) -> None:
    packed = wire.pack_ids(ids)
    assert packed == b"".join(id_.to_bytes(4, "little") for id_ in ids)
    assert wire.unpack_ids(packed) == ids


@pytest.mark.parametrize("units", [-1, 0, 10**12])
def test_a_device_without_units_or_with_more_than_any_has_is_unreadable(units: int) -> None:
    """A console drew a map of them: a traceback for none, all memory for very many."""
    with pytest.raises(WireError, match="units_total"):
        wire.decode_reply(wire.encode(replace(samples.PARTITION, units_total=units)))


def test_a_torn_token_id_is_refused() -> None:
    with pytest.raises(WireError, match="multiple of 4"):
        wire.unpack_ids(b"\x00" * 5)


@pytest.mark.parametrize(
    "reply",
    [
        wire.Deltas(items=[replace(samples.DELTA, token_ids=bytes(5))]),
        replace(samples.FINISHED, choices=[replace(samples.FINISHED.choices[0], token_ids=bytes(3))]),
    ],
)
def test_a_reply_with_a_torn_token_id_is_unreadable(reply: wire.Reply) -> None:
    """It ended the console, which met it only when it unpacked the ids."""
    with pytest.raises(WireError, match="cannot read: token ids must be u32 bytes"):
        wire.decode_reply(wire.encode(reply))


def test_an_endpoint_too_long_for_linux_is_refused_with_its_length() -> None:
    fits = "ipc://" + "/" + "x" * (wire.MAX_ENDPOINT_BYTES - 1)
    assert wire.check_endpoint(fits) == fits
    with pytest.raises(wire.EndpointError, match="108 bytes"):
        wire.check_endpoint(fits + "x")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "ipc://", "/run/x.sock", ""])
def test_only_local_sockets_are_endpoints(endpoint: str) -> None:
    with pytest.raises(wire.EndpointError):
        wire.check_endpoint(endpoint)


@pytest.mark.parametrize("host", ["*", "no such host", "a;b", "a#b", "\udcff", ""])
def test_only_hosts_can_be_connected_to(host: str) -> None:
    """The first ended in a traceback of libzmq's, and a key trusted for the second was gone with the next one."""
    with pytest.raises(wire.EndpointError):
        wire.check_client_endpoint(f"tcp://{host}:5")
    for good in ("127.0.0.1", "gpu-1.lab_a", "[fe80::1%eth0]"):
        assert wire.check_client_endpoint(f"tcp://{good}:5") == f"tcp://{good}:5"


def test_the_environment_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDCTL_ENDPOINT", "ipc:///tmp/mine.sock")
    assert wire.default_endpoint() == "ipc:///tmp/mine.sock"
    assert wire.metrics_endpoint("ipc:///tmp/mine.sock") == "ipc:///tmp/mine-metrics.sock"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give folders away")
def test_a_folder_that_somebody_else_made_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without XDG_RUNTIME_DIR it is in /tmp: whoever made it before the user's daemon did, or put a link there, got the
    prompts of `rapidctl run`."""
    user, other = 3_000_000_001, 3_000_000_002
    folder = Path(f"/tmp/rapidd-{user}")
    for name in ("RAPIDCTL_ENDPOINT", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: user)
    own = f"ipc://{folder}/rapidd/request.sock"
    assert wire.default_endpoint() == own
    try:
        folder.symlink_to("/")
        os.lchown(folder, other, other)
        with pytest.raises(wire.EndpointError, match=f"belongs to uid {other}"):
            wire.default_endpoint()
        os.lchown(folder, user, user)
        assert wire.default_endpoint() == own
    finally:
        folder.unlink(missing_ok=True)


# --- the package --------------------------------------------------------------------------------------------------


def test_every_public_name_of_its_modules_is_the_packages_too() -> None:
    defined: set[str] = set()
    for path in Path(wire.__path__[0]).glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    defined.add(name)
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    defined.add(name)
    assert {name for name in defined if not name.startswith("_")} == set(wire.__all__)
