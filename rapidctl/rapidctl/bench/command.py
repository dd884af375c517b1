"""What `rapidctl bench` does: from options to a session, its runs, and everything that is printed and kept.

Text is a table and, last, one JSON line; with ``--json`` only that line. Whatever ends a command early, Ctrl-C
included, what has been measured by then is printed, and a compared daemon has its policy back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rapidctl.bench import compare, report
from rapidctl.bench.daemon import policy_kept, set_policy, wait_until_idle
from rapidctl.bench.goodput import Goodput, search
from rapidctl.bench.http import Server, served_model
from rapidctl.bench.records import RecordFile
from rapidctl.bench.replay import MAX_LATENESS_S, Warmup
from rapidctl.bench.session import Load, Rules, Run, Session, stopping
from rapidctl.bench.svg import Drawn, picture, thinned
from rapidctl.bench.trace import Trace, read_trace, shape_trace
from rapidctl.client import DEFAULT_TIMEOUT_S, Client
from rapidctl.commands import common
from rapidctl.errors import RapidctlError, UsageError
from rapidctl.out import Out, seconds
from rapidctl.wire import GetStatus, Slo

if TYPE_CHECKING:
    from argparse import Namespace

EXIT_INVALID: Final = 1
EXIT_INTERRUPT: Final = 130
VOCAB_SIZE: Final = 32_000
"""Ids of prompts for a server that does not tell are below it."""
SERVER_SLO: Final = Slo(itl_s=0.05, ttft_floor_s=0.25, ttft_per_1k_s=1.0)
"""Of a server that has no objectives of its own; what rapidd takes on a GPU."""


class Interrupted(Exception):
    """Ctrl-C came: what there is, is all there will be."""


class Bench:
    """One command: its session, and what it has measured so far."""

    def __init__(
        self,
        args: Namespace,
        out: Out,
        session: Session,
        traces: Sequence[Trace],
        load: Load,
        server: Mapping[str, object],
    ) -> None:
        self.args = args
        self.out = out
        self.session = session
        self.traces = traces
        self.load = load
        self.server = server
        self.runs: list[Run] = []
        self.results: dict[str, Any] = {}
        """What was worked out of the runs, for the JSON line."""
        self._drawn: list[Drawn] = []

    def run(
        self, trace: Trace, scale: float, *, policy: str | None = None, repeat: int = 0, decide: bool = False
    ) -> Run:
        """One run, told about on stderr. Raises `Interrupted` when it was the last one."""
        if self.session.stop():
            raise Interrupted
        who = f"{trace.name}{f', {policy}' if policy else ''}, {scale:.3g} times its rate"
        self.out.note(f"bench: {who}")
        run = self.session.run(trace, self.load, scale, policy=policy, repeat=repeat, decide=decide)
        self.runs.append(run)
        self._drawn.append(_drawn(self.session, run))
        summary = run.summary
        self.out.note(
            f"bench: {who}: {summary.met} of {summary.offered} met, "
            f"TTFT p95 {seconds(summary.ttft_s.p95)}, ITL p95 {seconds(summary.itl_s.p95)}"
        )
        if run.ending == "stopped":
            raise Interrupted
        return run

    def finish(self, command: str, *, interrupted: bool) -> int:
        """The picture and the JSON line; the exit code."""
        if self.args.picture is not None:
            _write(self.args, picture(self._drawn))
        self.out.document(
            {
                "kind": "bench",
                "command": command,
                "at_unix_s": time.time(),
                "server": self.server,
                "load": self.load,
                "slo": self.session.rules.slo,
                "warmup": self.session.rules.warmup,
                "drain_s": self.session.rules.drain_s,
                "valid": all(run.valid for run in self.runs),
                "interrupted": interrupted,
                "runs": [run.document() for run in self.runs],
                **self.results,
            }
        )
        if interrupted:
            return EXIT_INTERRUPT
        return 0 if all(run.valid for run in self.runs) else EXIT_INVALID


def _drawn(session: Session, run: Run) -> Drawn:
    measured = [record for record in session.last.records if record.measured] if session.last else []
    ttft_s = sorted(record.ttft_s for record in measured if record.ttft_s is not None)
    itl_s = sorted(gap for record in measured for gap in record.gaps_s)
    label = f"{run.trace}, {run.policy or 'server'}, {run.scale:.3g} times its rate, repeat {run.repeat + 1}"
    return Drawn(label, thinned(ttft_s), thinned(itl_s), run.realised.samples if run.realised else [])


def _write(args: Namespace, text: str) -> None:
    try:
        args.picture.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{args.picture}: cannot be written: {error.strerror}") from error


# --- the commands -------------------------------------------------------------------------------------------------


class Once:
    """`bench run`: every trace once."""

    name = "run"

    def measure(self, bench: Bench) -> None:
        """Run them."""
        for trace in bench.traces:
            bench.run(trace, bench.args.rate_scale)

    def show(self, bench: Bench) -> None:
        """One in full, several as rows."""
        if len(bench.runs) == 1:
            report.show_run(bench.runs[0], bench.out)
        else:
            report.show_runs(bench.runs, bench.out)


class Search:
    """`bench goodput`: a search a trace."""

    name = "goodput"

    def measure(self, bench: Bench) -> None:
        """Search, trace by trace."""
        for trace in bench.traces:
            _search(bench, trace)

    def show(self, bench: Bench) -> None:
        """All runs, then what was found."""
        report.show_runs(bench.runs, bench.out)
        _show_goodputs(bench)


class Compare:
    """`bench compare`: policies in turn, repeat by repeat, trace by trace."""

    name = "compare"

    def __init__(self, args: Namespace) -> None:
        self._policies: list[str] = list(dict.fromkeys(args.policy))
        self._reference = compare.reference_of(self._policies) if self._policies else ""
        if len(self._policies) < 2:
            raise UsageError("nothing to compare", "name two policies or more: --policy auto --policy hybrid:512")
        if args.repeats < 2:
            raise UsageError("one repeat has no spread", "--repeats 2 at least")
        if args.http and not args.endpoint:
            raise UsageError("only a daemon's policy can be changed", "with --http, name its socket too: --endpoint")

    def measure(self, bench: Bench) -> None:
        """Each policy with the same arrivals; afterwards the daemon has its own again."""
        client = bench.session.client
        assert client is not None
        if len({trace.name for trace in bench.traces}) < len(bench.traces):
            raise UsageError("two traces have the same name", "ratios are told apart by it: rename one's file")
        figures: dict[str, dict[str, dict[str, dict[int, float | None]]]] = {}
        with policy_kept(client):
            for policy in self._policies:  # one that the daemon refuses is refused now, not after an hour
                set_policy(client, policy)
            for trace in bench.traces:
                for repeat in range(bench.args.repeats):
                    for policy in compare.order(self._policies, repeat):
                        wait_until_idle(client)
                        set_policy(client, policy)
                        for figure, value in _figures(bench, trace, policy, repeat).items():
                            by_policy = figures.setdefault(figure, {}).setdefault(trace.name, {})
                            by_policy.setdefault(policy, {})[repeat] = value
                        bench.results["compared"] = [self._compared(bench, *item) for item in figures.items()]

    def _compared(self, bench: Bench, figure: str, by_trace: Mapping[str, compare.Figures]) -> compare.Compared:
        ratios = [ratio for trace, found in by_trace.items() for ratio in compare.ratios(trace, found, self._reference)]
        unbounded = sum(item["found"].edge == "at_least" for item in bench.results.get("goodput", []))
        return compare.Compared(figure, self._reference, ratios, compare.means(ratios), unbounded)

    def show(self, bench: Bench) -> None:
        """All runs, then the ratios."""
        report.show_runs(bench.runs, bench.out)
        _show_goodputs(bench)
        for compared in bench.results.get("compared", []):
            bench.out.text("")
            report.show_ratios(compared, bench.out)


def _figures(bench: Bench, trace: Trace, policy: str, repeat: int) -> dict[str, float | None]:
    """What one policy is compared by in one repeat; null where the run is not valid."""
    if bench.args.goodput:
        before = len(bench.runs)
        found = _search(bench, trace, policy=policy, repeat=repeat)
        counts = all(run.valid for run in bench.runs[before:])
        return {"goodput": found.figure if counts else None}
    run = bench.run(trace, bench.args.rate_scale, policy=policy, repeat=repeat)
    return {
        "requests that met their SLO": float(run.summary.met) if run.valid else None,
        "output tokens/s": run.summary.output_tokens_per_s if run.valid else None,
    }


def _search(bench: Bench, trace: Trace, *, policy: str | None = None, repeat: int = 0) -> Goodput:
    """The goodput of one trace, and of one policy, if told."""
    args = bench.args
    rates: dict[float, float | None] = {}

    def share(scale: float) -> float | None:
        run = bench.run(trace, scale, policy=policy, repeat=repeat, decide=True)
        rates[scale] = run.offered_per_s
        if not run.valid:
            return None
        # What was given up had missed too often already, whatever the share of what was sent by then.
        return 0.0 if run.ending == "hopeless" else run.summary.both_met

    found = search(share, first=args.first, max_runs=args.max_runs, tolerance=args.tolerance)
    rate = rates[found.scale] if found.scale is not None else None
    searched = {"trace": trace.name, "policy": policy, "repeat": repeat, "requests_per_s": rate, "found": found}
    bench.results.setdefault("goodput", []).append(searched)
    return found


def _show_goodputs(bench: Bench) -> None:
    for item in bench.results.get("goodput", []):
        report.show_goodput(item["trace"], item["policy"], item["found"], item["requests_per_s"], bench.out)


def carry_out(command: Once | Search | Compare, args: Namespace, out: Out) -> int:
    """Measure, then print what there is, however the measuring ended; an error is raised after that."""
    with _opened(args, out) as bench:
        interrupted, failure = False, None
        try:
            command.measure(bench)
        except (Interrupted, KeyboardInterrupt):
            interrupted = True
        except RapidctlError as error:
            if not bench.runs:
                raise
            failure = error
        if bench.runs and not out.json:
            command.show(bench)
        code = bench.finish(command.name, interrupted=interrupted)
        if failure is not None:
            raise failure
        return code


# --- from options to a session ------------------------------------------------------------------------------------


@contextmanager
def _opened(args: Namespace, out: Out) -> Iterator[Bench]:
    """The session that the options ask for. Raises `UsageError`, `Unreachable` and what a server's answers deserve."""
    traces = traces_of(args)
    if not args.http and (args.model or args.vocab_size):
        raise UsageError("--model and --vocab-size are of a server: give --http, or leave them out")
    if args.picture is not None:
        if args.picture.suffix != ".svg":
            raise UsageError(f"{args.picture}: the picture is an SVG", "call it FILE.svg")
        _write(args, picture([]))  # a path that cannot be written is refused now, not after an hour
    with ExitStack() as stack:
        client = None
        if not args.http or args.endpoint:
            timeout_s = args.timeout or DEFAULT_TIMEOUT_S
            client = stack.enter_context(
                Client(common.endpoint(args), name="rapidctl-bench", control=args.control, timeout_s=timeout_s)
            )
        server = Served.ask(args, client)
        keep = stack.enter_context(RecordFile(args.out)) if args.out is not None else None
        session = Session(
            client=client,
            http=server.http,
            vocab_size=server.vocab_size,
            rules=Rules(
                slo=_slo(args, server.slo),
                warmup=Warmup(args.warmup, args.warmup_requests),
                drain_s=args.drain,
                max_lateness_s=args.max_lateness or MAX_LATENESS_S,
            ),
            salt=args.salt if args.salt is not None else os.urandom(6).hex(),
            stop=stack.enter_context(stopping()),
            keep=keep,
        )
        load = Load(
            start_s=args.start,
            seconds=args.seconds,
            requests=args.requests,
            resize=args.length_scale,
            max_model_len=args.max_model_len or server.max_model_len,
            over_long=args.over_long,
        )
        yield Bench(args, out, session, traces, load, server.about)


def traces_of(args: Namespace) -> list[Trace]:
    """All that were named, files first. Raises `TraceError`, or `UsageError` when none was."""
    read = [
        read_trace(path, request_rate=args.request_rate, seed=args.seed, spread=not args.batched)
        for path in args.traces
    ]
    shaped = [shape_trace(shape, seed=args.seed) for shape in args.shape]
    if not read and not shaped:
        raise UsageError("no trace", "name a file of one, or a shape: --shape 4096/256@3")
    return [*read, *shaped]


class Served(NamedTuple):
    """What must be known of a server before it is loaded. ``about``: for the JSON line."""

    http: tuple[Server, str] | None
    vocab_size: int
    max_model_len: int | None
    slo: Slo
    about: Mapping[str, object]

    @classmethod
    def ask(cls, args: Namespace, client: Client | None) -> Served:
        """Ask the daemon, or the server at ``--http``. Raises what their answers deserve."""
        daemon = None if client is None else cls._daemon(client)
        if not args.http:
            assert daemon is not None
            return daemon
        server = Server.parse(args.http)
        served = served_model(server, args.model)
        slo, about = (SERVER_SLO, {}) if daemon is None else (daemon.slo, daemon.about)
        about = {**about, "http": args.http, "model": served.id}
        return cls((server, served.id), args.vocab_size or VOCAB_SIZE, served.max_model_len, slo, about)

    @classmethod
    def _daemon(cls, client: Client) -> Served:
        wait_until_idle(client)
        status = client.call(GetStatus(call=0))
        model, partition = status.model, status.partition
        assert model is not None, "a daemon that serves has a model"
        about = {
            "version": status.version,
            "boot_id": status.boot_id,
            "model": model.name,
            "dtype": model.dtype,
            "device": status.device.name if status.device else None,
            "policy": partition.policy if partition else None,
            "profile": partition.profile if partition else None,
        }
        return cls(None, model.vocab_size, model.max_model_len, status.slo, about)


def _slo(args: Namespace, given: Slo) -> Slo:
    """The server's objectives, but for those named by options."""
    return Slo(
        itl_s=args.slo_itl or given.itl_s,
        ttft_floor_s=args.slo_ttft_floor or given.ttft_floor_s,
        ttft_per_1k_s=args.slo_ttft_per_1k or given.ttft_per_1k_s,
    )
