"""One sample of every request and every reply, by name, made of `samples.py`."""

from msgspec import Raw
from msgspec.msgpack import encode

from rapidctl import wire
from rapidctl.wire import pack_ids
from support.samples import CALIBRATION, DELTA, EVENT, FINISHED, PARTITION, PLAN, ROW, SNAPSHOT, STATUS, WELCOME

REQUESTS: dict[str, wire.Request] = {
    "hello": wire.Hello(client="rapidctl", control=True),
    "ping": wire.Ping(call=1),
    "generate_prompt": wire.Generate(
        id="r-1",
        prompt="Hello",
        sampling=wire.Sampling(
            temperature=0.7,
            top_k=40,
            top_p=0.9,
            min_p=0.05,
            repetition_penalty=1.1,
            presence_penalty=-0.5,
            frequency_penalty=0.5,
            seed=42,
            max_tokens=64,
            min_tokens=2,
            stop_token_ids=[2],
            ignore_eos=True,
            logprobs=2,
        ),
        n=2,
        stop=["\n\n"],
        priority=-1,
        deadline_s=30.0,
        slo_class="batch",
        resume_ids=[pack_ids([504]), b""],
        age_s=1.5,
    ),
    "generate_messages": wire.Generate(
        id="r-2", messages=[wire.ChatMessage("system", "Be brief."), wire.ChatMessage("user", "Hi")]
    ),
    "generate_ids": wire.Generate(id="r-3", prompt_ids=pack_ids([1, 2, 2**32 - 1])),
    "generate_unsupported": wire.Generate(
        id="r-4",
        prompt="x",
        response_format=Raw(encode({"type": "json"})),
        tools=Raw(encode([])),
        tool_choice=Raw(encode("auto")),
        logit_bias=Raw(encode({"1": 2.0})),
        lora=Raw(encode("adapter")),
    ),
    "cancel": wire.Cancel(call=1, id="r-1"),
    "getstatus": wire.GetStatus(call=2),
    "getsnapshot": wire.GetSnapshot(call=3),
    "getrequests": wire.GetRequests(call=4, id="r-1"),
    "getevents": wire.GetEvents(call=5, from_seq=3, limit=10),
    "getpartition": wire.GetPartition(call=6),
    "predictpartition": wire.PredictPartition(call=7, plan=PLAN),
    "getprofile": wire.GetProfile(call=7, itl_s=0.025, kv_per_row=2048),
    "setpartition": wire.SetPartition(
        call=8, plan=PLAN, ttl_s=None, guard=False, reason="stalls", by="ana", if_epoch=4, deadline_unix_s=1.7e9
    ),
    "releasepartition": wire.ReleasePartition(call=9, by="ana", reason="done", if_epoch=5, deadline_unix_s=1.7e9),
    "setpolicy": wire.SetPolicy(call=10, policy="hybrid:512", by="ana", if_epoch=5, deadline_unix_s=1.7e9),
    "undopartition": wire.UndoPartition(call=10, by="ana", if_epoch=5, deadline_unix_s=1.7e9),
    "drain": wire.Drain(call=11, on=False, by="ana"),
    "reload": wire.Reload(call=12, by="ana"),
}
REPLIES: dict[str, wire.Reply] = {
    "welcome": WELCOME,
    "pong": wire.Pong(call=1, at_mono_ns=5),
    "accepted": wire.Accepted(id="r-1", prompt_tokens=14, seed=42, resumed=True),
    "deltas": wire.Deltas(items=[DELTA]),
    "finished": FINISHED,
    "failed": wire.Failed(
        code="queue_full",
        message="the queue is full",
        hint="try again later",
        id="r-1",
        call=3,
        retry_after_s=1.5,
        output_tokens=2,
    ),
    "status": STATUS,
    "snapshotreply": wire.SnapshotReply(call=3, snapshot=SNAPSHOT),
    "requestlist": wire.RequestList(call=4, rows=[ROW]),
    "eventlist": wire.EventList(call=5, oldest_seq=1, next_seq=4, events=[EVENT]),
    "partition": PARTITION,
    "profile": wire.ProfileReply(
        call=7,
        calibration=CALIBRATION,
        notes=["the profile old.json is not used: the driver changed"],
        itl_s=0.025,
        kv_per_row=2048,
        knee=[
            wire.KneeRow(rows=1, decode_units=1, step_s=0.02),
            wire.KneeRow(rows=32, decode_units=2, step_s=0.024),
            wire.KneeRow(rows=64, decode_units=None, step_s=0.031),
        ],
    ),
    "prediction": wire.Prediction(
        call=7,
        legal=True,
        note="profile cpu-2-smollm2",
        prefill_units=1,
        itl_p95_s=0.04,
        ttft_p95_s=1.2,
        prefill_tokens_per_s=800.0,
        breaches_slo=False,
    ),
    "controlreply": wire.ControlReply(call=8, epoch=6, text="accepted"),
}
