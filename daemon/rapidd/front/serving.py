"""Streams from `Accepted` to their one terminal message: tokens in, deltas out, cancel, deadlines, engine deaths.

Everything a client gets to see of an engine step goes out as one `wire.Deltas` with all its streams' items. Knows no
operator verbs, no snapshots and no sockets.
"""

from rapidctl import wire
from rapidd import ipc, log
from rapidd.config import PolicyConfig
from rapidd.errors import RequestError
from rapidd.front import admission
from rapidd.front.admission import Capacity, TextModel
from rapidd.front.clients import Client, Clients, Clock, refusal
from rapidd.front.deadlines import Deadlines, age
from rapidd.front.engine_link import EngineLink
from rapidd.front.events import EventLog
from rapidd.front.hope import hopeless
from rapidd.front.journal import MAX_RESUBMISSIONS, Choice, Journal, Stream
from rapidd.front.quarantine import Quarantine
from rapidd.front.totals import Totals
from rapidd.telemetry.histogram import Histogram
from rapidd.telemetry.latency import LatencyRecorder, judge


class Serving:
    """All live streams."""

    def __init__(
        self,
        clients: Clients,
        link: EngineLink,
        events: EventLog,
        latency: LatencyRecorder,
        clock: Clock,
        *,
        policy: PolicyConfig,
    ) -> None:
        self.journal = Journal()
        self.deadlines = Deadlines(self.journal)
        self.totals = Totals()
        self._clients = clients
        self._link = link
        self._events = events
        self._latency = latency
        self._clock = clock
        self.policy = policy
        self._quarantine = Quarantine()

    # --- opening ---------------------------------------------------------------------------------------------

    def open(
        self,
        client: Client,
        request: wire.Generate,
        prompt_ids: list[int],
        text: TextModel,
        capacity: Capacity,
        arrival_ns: int,
    ) -> None:
        """Accept a new stream and submit its choices. Raises `RequestError`."""
        stream = admission.admit(request, prompt_ids, client.identity, text, capacity, arrival_ns)
        self._look_for_hope(stream)
        self._quarantine.check(stream)
        self.journal.add(stream)
        client.stream_ids.add(stream.id)
        self.totals.accepted += 1
        if log.debug_is_on():
            log.debug("request accepted", request_id=stream.id, client=client.label, prompt_tokens=len(prompt_ids))
        self._latency.arrived(arrival_ns)
        accepted = wire.Accepted(id=stream.id, prompt_tokens=stream.prompt_tokens, seed=stream.template.seed)
        if not self._clients.reply(client.identity, accepted):
            return
        self.deadlines.watch(stream)
        if stream.done:
            self._finish(stream)
            return
        for choice in stream.live:
            self._submit(choice)

    def _look_for_hope(self, stream: Stream) -> None:
        """Count an interactive request that would miss its TTFT objective by far; refuse it if so told."""
        state = self._link.state
        if state is None or stream.resumed or stream.template.slo_class != "interactive":
            return
        delay = hopeless(stream, self.journal, self._latency.slo, state, self.policy, self._clock())
        if delay is None:
            return
        self.totals.hopeless += 1
        if self.policy.refuse_hopeless:
            raise RequestError(
                "queue_full",
                f"{delay.tokens_first} prompt tokens come first: the first token would come far too late",
                "try again later, send it as slo_class batch, or set policy.refuse-hopeless = false",
                retry_after_s=admission.retry_after_s(delay.late_s),
            )

    def attach(self, client: Client, request: wire.Generate, stream: Stream) -> None:
        """Answer a `Generate` whose id is running: give the stream to a client that lost its connection.

        Raises `RequestError` with ``duplicate_id`` when it is another request, or another client holds it.
        """
        self.check_same(client, request, stream.client, stream.digest)
        moved = stream.client != client.identity
        stream.client = client.identity
        client.stream_ids.add(stream.id)
        accepted = wire.Accepted(
            id=stream.id, prompt_tokens=stream.prompt_tokens, seed=stream.template.seed, resumed=True
        )
        asks = moved or request.resume_ids is not None
        if self._clients.reply(client.identity, accepted) and asks:
            known = [len(ids) // 4 for ids in request.resume_ids or ()]
            items = [choice.replay(known[choice.index] if known else 0) for choice in stream.choices]
            self._clients.reply(client.identity, wire.Deltas(items=[item for item in items if item.token_ids]))

    def check_same(self, client: Client, request: wire.Generate, holder: bytes, digest: bytes) -> None:
        """Whether ``client`` may have what was asked under the id of ``request`` before, by the client ``holder``.

        Raises `RequestError` with ``duplicate_id`` when it was another request, or its client is still there.
        """
        if admission.digest(request) != digest:
            what = f"another request runs under the id {request.id!r}"
        elif holder != client.identity and self._clients.is_there(holder):
            what = f"{request.id!r} is streamed to another connection"
        else:
            return
        raise RequestError("duplicate_id", what, "choose a new id, or cancel that one")

    def _submit(self, choice: Choice) -> None:
        if self._link.connected:
            self._link.send(self.journal.submit(choice))

    # --- what the engine says ----------------------------------------------------------------------------------

    def step(self, step: ipc.Step) -> None:
        """Deliver one batch's tokens."""
        now_ns = self._clock()
        stamps = [step.at_mono_ns]
        choices = self.journal.choices
        items: dict[bytes, list[wire.Delta]] = {}
        done: list[Stream] = []
        stale: list[int] = []
        gaps: dict[int, int] = {}  # ns -> tokens that came so long after their stream's last one
        for token in step.tokens:
            choice = choices.get(token.rid)
            if choice is None:
                continue  # of an earlier engine, or just cancelled
            stream = choice.stream
            delta = self._take(choice, token, stamps, now_ns, gaps)
            if stream.client in items:
                items[stream.client].append(delta)
            else:
                items[stream.client] = [delta]
            if choice.finish_reason is not None:
                if token.finish is None:
                    stale.append(choice.rid)
                self.journal.end(choice)
                if stream.done:
                    done.append(stream)
        self._link.mode = step.mode
        self._abort(stale)
        for identity, deltas in items.items():
            self.totals.streamed_tokens += len(deltas)
            self._clients.reply(identity, wire.Deltas(items=deltas))
        self._latency.step(len(step.tokens), gaps, now_ns)
        for stream in done:
            self._finish(stream)

    def _take(
        self, choice: Choice, token: ipc.Token, stamps: list[int], now_ns: int, gaps: dict[int, int]
    ) -> wire.Delta:
        stream = choice.stream
        (at_ns,) = stamps
        if choice.last_ns is None:
            choice.first_ns = at_ns
            if choice.phase != "decoding":
                self.journal.set_phase(choice, "decoding")
            if stream.first_ns is None:
                stream.first_ns = at_ns
                if not stream.resumed:
                    self._latency.first_token((at_ns - stream.arrival_ns) / 1e9, stream.prompt_tokens, now_ns)
        else:
            gap_ns = max(0, at_ns - choice.last_ns)
            choice.gaps_ns.append(gap_ns)
            gaps[gap_ns] = gaps.get(gap_ns, 0) + 1
        choice.last_ns = at_ns
        if token.cached is not None and stream.cached_tokens is None:
            stream.cached_tokens = token.cached
            stream.prefill_ns = stream.prefill_ns or token.prefill_start_mono_ns
        index = len(choice.output_ids)
        logprobs = None
        if choice.logprobs is not None and token.logprob is not None:
            logprobs = [choice.text.logprob(token.token_id, token.logprob, token.top or [])]
            choice.logprobs += logprobs
        text = choice.take(token.token_id, token.finish)
        return wire.Delta(
            id=stream.id,
            choice=choice.index,
            index=index,
            token_ids=token.token_id.to_bytes(4, "little"),
            text=text,
            at_mono_ns=stamps,
            logprobs=logprobs,
            finish_reason=choice.finish_reason,
        )

    def dropped(self, message: ipc.Dropped) -> None:
        """The engine gave a choice up: its whole stream fails."""
        choice = self.journal.choices.get(message.rid)
        if choice is not None:
            if message.code == "internal_error":  # the engine's log has the traceback, and no names of requests
                log.error(f"request failed: {message.message}", request_id=choice.stream.id)
            self.fail(choice.stream, RequestError(message.code, message.message))

    def engine_state(self, state: ipc.EngineState) -> None:
        """Learn where each choice is."""
        for report in state.requests:
            choice = self.journal.choices.get(report.rid)
            if choice is None:
                continue
            choice.state = report
            if choice.phase != report.phase:
                self.journal.set_phase(choice, report.phase)
            if choice.stream.prefill_ns is None:
                choice.stream.prefill_ns = report.prefill_start_mono_ns

    def resubmit(self, after_death: bool) -> None:
        """Give every live choice to the engine that just said hello. A death counts against those it was running."""
        repeated = 0
        for stream in list(self.journal.streams.values()):
            if any(choice.submitted for choice in stream.live):
                stream.resubmissions += after_death
                repeated += 1
            if (sentence := self._quarantine.convict(stream)) is not None:
                text = f"request {stream.id} killed the engine {stream.kills} times: it and its like are refused"
                self._events.emit("warning", text, "error", request_id=stream.id)
                self.fail(stream, sentence)
                continue
            if stream.resubmissions > MAX_RESUBMISSIONS:
                self.fail(
                    stream,
                    RequestError(
                        "engine_lost",
                        f"the engine died {stream.resubmissions} times while this request ran",
                        "the request itself may be the cause; see the daemon's log before sending it again",
                    ),
                )
                continue
            if not after_death:
                self._abort([choice.rid for choice in stream.live if choice.submitted])
            for choice in stream.live:
                self._submit(choice)
        if repeated:
            self._events.emit("resubmitted", f"{repeated} requests go on in the new engine", "warn")

    def engine_lost(self) -> None:
        """Nothing runs until the next engine: every live choice waits. One that ran alone is suspected."""
        self._quarantine.suspect(self.journal.streams.values())
        for choice in self.journal.live():
            self.journal.set_phase(choice, "waiting")

    # --- endings -----------------------------------------------------------------------------------------------

    def _finish(self, stream: Stream) -> None:
        """Send the terminal message of a stream whose choices have all ended."""
        self.journal.remove(stream)
        now_ns = self._clock()
        cancelled = any(choice.finish_reason == "cancelled" for choice in stream.choices)
        gaps = Histogram()
        for choice in stream.choices:
            gaps.merge(choice.gaps)
        slo_met = None
        if not cancelled and not stream.resumed and stream.first_ns is not None:
            ttft_s = (stream.first_ns - stream.arrival_ns) / 1e9
            verdict = judge(self._latency.slo, stream.prompt_tokens, ttft_s, [choice.gaps for choice in stream.choices])
            tpot_s = [choice.gaps.mean for choice in stream.choices if choice.gaps.mean is not None]
            self._latency.finished((now_ns - stream.arrival_ns) / 1e9, tpot_s, verdict, now_ns)
            slo_met = verdict.both
        self.totals.cancelled += cancelled
        self.totals.finished += not cancelled
        self.totals.outputs.update(str(choice.finish_reason) for choice in stream.choices)
        timing = _timing(stream, gaps, now_ns)
        self._latency.phases(timing.queued_s, timing.prefill_s)
        self._end(
            stream,
            wire.Finished(
                id=stream.id,
                choices=[choice.result() for choice in stream.choices],
                prompt_tokens=stream.prompt_tokens,
                cached_tokens=stream.cached_tokens or 0,
                output_tokens=stream.output_tokens,
                timing=timing,
                mode=self._link.mode,
                preemptions=stream.preemptions,
                resubmissions=stream.resubmissions,
                slo_met=slo_met,
            ),
        )

    def cancel(self, stream: Stream) -> None:
        """End what still runs of a stream; its client gets `Finished` with what there is."""
        rest = []
        running = []
        for choice in stream.live:
            if choice.submitted:
                running.append(choice.rid)
            choice.finish_reason = "cancelled"
            text = choice.text.close()
            if text:
                index = len(choice.output_ids)
                rest.append(wire.Delta(id=stream.id, choice=choice.index, index=index, token_ids=b"", text=text))
        self._abort(running)
        if rest:
            self._clients.reply(stream.client, wire.Deltas(items=rest))
        self._finish(stream)

    def fail(self, stream: Stream, error: RequestError) -> None:
        """End a stream with an error."""
        self._abort(self.journal.remove(stream))
        self.totals.failed[error.code] += 1
        self._end(stream, refusal(error, stream_id=stream.id, output_tokens=stream.output_tokens))

    def fail_all(self, error: RequestError) -> None:
        """End every stream with the same error."""
        for stream in list(self.journal.streams.values()):
            self.fail(stream, error)

    def abandon(self, client: Client, why: str) -> list[Stream]:
        """Drop the streams of a client that cannot be told; returns them. ``why``: see `Totals.failed`."""
        known = [self.journal.streams.get(stream_id) for stream_id in client.stream_ids]
        streams = [stream for stream in known if stream is not None and stream.client == client.identity]
        for stream in streams:
            self._abort(self.journal.remove(stream))
            self.totals.failed[why] += 1
        client.stream_ids.clear()
        return streams

    def expire(self) -> None:
        """Fail the streams whose deadline has passed."""
        now_ns = self._clock()
        for stream in self.deadlines.due(now_ns):
            self.fail(
                stream,
                RequestError(
                    "deadline_exceeded",
                    f"not finished {age(stream, now_ns)} after its arrival",
                    "allow a longer deadline_s, or ask for fewer tokens",
                ),
            )

    def _abort(self, rids: list[int]) -> None:
        """Tell the engine to drop choices."""
        if rids:
            self._link.send(ipc.Abort(rids))

    def _end(self, stream: Stream, message: wire.Finished | wire.Failed) -> None:
        client = self._clients.get(stream.client)
        if log.debug_is_on():
            how = message.code if isinstance(message, wire.Failed) else "finished"
            log.debug(f"request {how}", request_id=stream.id, output_tokens=stream.output_tokens)
        if client is not None:
            client.stream_ids.discard(stream.id)
        self._clients.reply(stream.client, message)


def _timing(stream: Stream, gaps: Histogram, now_ns: int) -> wire.Timing:
    def seconds(begin_ns: int | None, end_ns: int | None) -> float | None:
        return None if begin_ns is None or end_ns is None else (end_ns - begin_ns) / 1e9

    return wire.Timing(
        queued_s=seconds(stream.arrival_ns, stream.prefill_ns),
        prefill_s=seconds(stream.prefill_ns, stream.first_ns),
        ttft_s=seconds(stream.arrival_ns, stream.first_ns),
        e2e_s=(now_ns - stream.arrival_ns) / 1e9,
        itl_s=gaps.summary(),
        itl_s_mean=gaps.mean,
    )
