"""``PYTHONPATH=rapidctl:daemon:kernels python -m bench.compare_gpu --out FILE --shape 20000/200@0.8 …``: arms on GPUs.

Replays windows of traces against daemons of its own, one a GPU, each arm with the same arrivals; policies are changed
while a daemon serves. An arm is a policy: `auto`, `hybrid:512`, `shared`, `split:24`. With several GPUs the arms of a
cell (trace, scale, repeat) run side by side, and change GPUs from cell to cell. What does not fit the time is left out
and named. FILE is written after every run, so whatever ends this leaves all that was measured; with several GPUs
FILE.gpuN.json is, and FILE is made of them at the end, whatever that is. What follows ``--`` replaces the daemons'
options. The load generator is `rapidctl.bench`; definitions are in docs/bench.md.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.figures import SCHEMA_VERSION
from bench.processes import daemon, exit_on_sigterm
from bench.progress import say
from rapidctl.bench.compare import order
from rapidctl.bench.daemon import set_policy, wait_until_idle
from rapidctl.bench.records import RecordFile
from rapidctl.bench.replay import Warmup
from rapidctl.bench.report import show_runs
from rapidctl.bench.session import Load, Rules, Run, Session
from rapidctl.bench.trace import Trace, read_trace, shape_trace
from rapidctl.client import Client
from rapidctl.commands.common import positive_duration_s
from rapidctl.errors import RapidctlError, Refused
from rapidctl.out import Out
from rapidctl.wire import GetStatus, Slo, Status

SERVE = ("--device", "cuda", "--weights", "random", "--shape", "llama-3.1-8b", "--max-model-len", "24576")
ARMS = ("auto", "hybrid:512", "shared", "split:24", "split:32")
WARM_REQUESTS = 4
"""Of the first trace, for each arm before anything is measured."""
NOT_TOLD = ("end_s", "out", "trace", "visible")
"""Of the options, what the file does not keep."""
MARGIN_S = 10.0
"""Between a run's longest end and the end of the time."""


class Job(msgspec.Struct, frozen=True):
    """One run. ``trace`` and ``scale`` are indices of the options' lists."""

    trace: int
    scale: int
    repeat: int
    arm: str


def main() -> int:
    """Measure, print a table and write the file."""
    arguments = _options()
    documents = [work(arguments, 0, None)] if arguments.gpus == 1 else _side_by_side(arguments)
    failed = [document["failure"] for document in documents if document["failure"]]
    for failure in failed:
        say(failure)
    return 1 if failed or len(documents) < arguments.gpus else 0


def _side_by_side(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A worker a GPU. However this ends, they end with it, and FILE is made of what they have left."""
    parts = [_part(arguments.out, gpu) for gpu in range(arguments.gpus)]
    for part in parts:  # of an earlier run
        part.unlink(missing_ok=True)
    documents: list[dict[str, Any]] = []
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work_alone, args=(arguments, gpu)) for gpu in range(arguments.gpus)]
    with exit_on_sigterm():
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            alive = [worker for worker in workers if worker.is_alive()]
            for worker in alive:
                worker.terminate()
            for worker in alive:
                worker.join()
            documents += [msgspec.json.decode(part.read_bytes()) for part in parts if part.exists()]
            _write(arguments.out, _merged(documents))
    return documents


def _work_alone(arguments: argparse.Namespace, gpu: int) -> None:
    """In a process of its own, which its parent ends by SIGTERM; Ctrl-C would reach it in the middle of that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(arguments, gpu, arguments.visible[gpu])


def visible_gpus(gpus: int) -> list[str]:
    """`CUDA_VISIBLE_DEVICES` of each worker: one of those that this process may use. Raises ValueError: too few."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(gpu) for gpu in range(gpus)] if allowed is None else [name for name in allowed.split(",") if name]
    if len(names) < gpus:
        raise ValueError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES={allowed} leaves {len(names)}")
    return names[:gpus]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.compare_gpu", description="Compare policies on this machine's GPUs.")
    add = parser.add_argument
    add(
        "--trace",
        metavar="FILE[@X]",
        type=_trace_file,
        action="append",
        default=[],
        help="of requests, X times as fast as recorded (1); may be repeated",
    )
    add("--shape", metavar="IN/OUT@RATE", action="append", default=[], help="fixed lengths; may be repeated")
    add("--scales", metavar="X", type=float, nargs="+", default=[1.0], help="rate scales (1)")
    add("--arms", metavar="P", nargs="+", default=ARMS, help=f"policies ({' '.join(ARMS)})")
    add("--repeats", metavar="N", type=int, default=1)
    add("--start", metavar="DUR", type=positive_duration_s, default=0.0, help="skip so much of a trace")
    add("--seconds", metavar="DUR", type=positive_duration_s, default=60.0, help="of arrivals a run (60s)")
    add("--warmup", metavar="DUR", type=positive_duration_s, default=5.0, help="of them not measured (5s)")
    add("--drain", metavar="DUR", type=positive_duration_s, default=30.0, help="wait for open requests (30s)")
    add("--itl-slo", metavar="DUR", type=positive_duration_s, help="of the daemons (theirs)")
    add("--time", metavar="DUR", type=positive_duration_s, default=570.0, help="for everything (570s)")
    add("--gpus", metavar="N", type=int, default=1, help="daemons side by side, one a GPU (1)")
    add("--seed", metavar="N", type=int, default=0, help="of drawn arrivals (0)")
    add("--records", action="store_true", help="keep every request, in a file beside FILE for each GPU")
    add("--out", metavar="FILE", type=Path, required=True)
    add("serve", metavar="OPTION", nargs="*", default=SERVE, help=f"of the daemons, after -- ({' '.join(SERVE)})")
    arguments = parser.parse_args()
    arguments.end_s = time.monotonic() + arguments.time  # one clock for all processes of a machine
    if not arguments.trace and not arguments.shape:
        parser.error("no trace: --trace FILE or --shape 20000/200@0.8")
    if arguments.gpus > 1:
        try:
            arguments.visible = visible_gpus(arguments.gpus)
        except ValueError as error:
            parser.error(str(error))
    return arguments


def _trace_file(text: str) -> tuple[Path, float]:
    """A file and how fast its requests come at scale 1, of the rate recorded. An @ in a folder's name is part of it."""
    folder, slash, name = text.rpartition("/")
    file, _, factor = name.partition("@")
    try:
        speed = float(factor or 1)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: X in FILE@X is a positive number")
    return Path(folder + slash + file), speed


def jobs_of(arguments: argparse.Namespace, gpu: int) -> list[Job]:
    """What one GPU runs, in order. Cell by cell the arms are dealt out anew, the first one to another GPU."""
    traces = len(arguments.trace) + len(arguments.shape)
    cells = [
        (repeat, trace, scale)
        for repeat in range(arguments.repeats)
        for scale in range(len(arguments.scales))  # if the time runs out, it does for all traces alike
        for trace in range(traces)
    ]
    return [
        Job(trace, scale, repeat, arm)
        for number, (repeat, trace, scale) in enumerate(cells)
        for place, arm in enumerate(order(arguments.arms, number))
        if place % arguments.gpus == gpu
    ]


def work(arguments: argparse.Namespace, gpu: int, visible: str | None) -> dict[str, Any]:
    """All jobs of one GPU on a daemon of its own; its document, which is also written after every run."""
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if arguments.itl_slo:
        os.environ["RAPIDD__SLO__ITL_S"] = str(arguments.itl_slo)
    traces = [
        *(read_trace(path, seed=arguments.seed) for path, _ in arguments.trace),
        *(shape_trace(shape, seed=arguments.seed) for shape in arguments.shape),
    ]
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "options": {name: value for name, value in vars(arguments).items() if name not in NOT_TOLD},
        "traces": [trace.name for trace in traces],
        "runs": [],
        "refused": {},
        "left_out": [],
        "failure": None,
    }
    path = arguments.out if visible is None else _part(arguments.out, gpu)
    runs: list[Run] = []
    try:
        with daemon(*arguments.serve) as server, server.client() as client:
            say(f"gpu {gpu}: ready in {server.ready_s:.0f} s")
            document["ready_s"] = server.ready_s
            _run_all(arguments, gpu, client, traces, document, runs, path)
    except (RapidctlError, RuntimeError, OSError) as error:
        document["failure"] = f"gpu {gpu}: {error}"
    _write(path, document)
    if runs:
        show_runs(runs, Out(json=False, color="never"))
    return document


def _run_all(
    arguments: argparse.Namespace,
    gpu: int,
    client: Client,
    traces: Sequence[Trace],
    document: dict[str, Any],
    runs: list[Run],
    path: Path,
) -> None:
    status = client.call(GetStatus(call=0))
    document["server"] = {"version": status.version, "model": status.model, "device": status.device}
    document["slo"] = status.slo
    records = RecordFile(path.with_suffix(".records.jsonl.gz")) if arguments.records else None
    session = _session(client, status, arguments, records)
    load = Load(
        start_s=arguments.start,
        seconds=arguments.seconds,
        max_model_len=status.model.max_model_len if status.model else None,
    )
    jobs = jobs_of(arguments, gpu)
    for arm in dict.fromkeys(job.arm for job in jobs):
        try:
            set_policy(client, arm)
            _session(client, status, arguments, None).run(traces[0], _first(load), 1e3)
        except Refused as error:
            document["refused"][arm] = error.message
            say(f"gpu {gpu}: {arm} is refused: {error.message}")
    for job in jobs:
        if job.arm in document["refused"]:
            continue
        if time.monotonic() + arguments.seconds + arguments.drain + MARGIN_S > arguments.end_s:
            document["left_out"].append(job)
            continue
        wait_until_idle(client)
        set_policy(client, job.arm)
        scale = _scale(arguments, job)
        run = session.run(traces[job.trace], load, scale, policy=job.arm, repeat=job.repeat)
        runs.append(run)
        document["runs"].append({"gpu": gpu, **run.document()})
        _write(path, document)
        left_s = arguments.end_s - time.monotonic()
        say(f"gpu {gpu}: {_line(run)}; {left_s:.0f} s left")
    if records is not None:
        records.close()


def _scale(arguments: argparse.Namespace, job: Job) -> float:
    """Of the trace's recorded rate, or of the shape's."""
    speed: float = arguments.trace[job.trace][1] if job.trace < len(arguments.trace) else 1.0
    return speed * float(arguments.scales[job.scale])


def _session(client: Client, status: Status, arguments: argparse.Namespace, records: RecordFile | None) -> Session:
    assert status.model is not None
    slo: Slo = status.slo
    rules = Rules(slo=slo, warmup=Warmup(arguments.warmup), drain_s=arguments.drain)
    salt = os.urandom(6).hex()
    return Session(client=client, vocab_size=status.model.vocab_size, rules=rules, salt=salt, keep=records)


def _first(load: Load) -> Load:
    """A few requests, to make whatever is made when it is first needed."""
    return msgspec.structs.replace(load, requests=WARM_REQUESTS)


def _line(run: Run) -> str:
    summary = run.summary
    itl, ttft = summary.itl_s, summary.ttft_s
    return (
        f"{run.trace} x {run.scale:g}, {run.policy}: {summary.met}/{summary.offered} met, "
        f"ITL p95 {_ms(itl.p95)} p99 {_ms(itl.p99)} ms, TTFT p95 {_ms(ttft.p95)} ms{'' if run.valid else ', NOT VALID'}"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.1f}"


def _part(out: Path, gpu: int) -> Path:
    return out.with_suffix(f".gpu{gpu}.json")


def _merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of all GPUs' ones: the head of the first whose daemon was there, everybody's runs."""
    if not documents:
        return {"schema_version": SCHEMA_VERSION, "runs": [], "failure": "no worker left a document"}
    merged = dict(next((document for document in documents if "server" in document), documents[0]))
    for name in ("runs", "left_out"):
        merged[name] = [item for document in documents for item in document[name]]
    merged["refused"] = {arm: why for document in documents for arm, why in document["refused"].items()}
    merged["failure"] = "; ".join(document["failure"] for document in documents if document["failure"]) or None
    return merged


def _write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half of it."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(document) + b"\n")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
