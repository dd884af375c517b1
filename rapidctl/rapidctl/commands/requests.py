"""`rapidctl requests`: the live requests; one of them; cancel one. Never any prompt or output text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl.commands import common
from rapidctl.out import Out, number, seconds
from rapidctl.wire import GetRequests, RequestRow

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "requests", "list, show or cancel live requests")
    common.add_watch_options(common.add_command(group, "ls", run_ls, "list live requests, oldest first"))
    show = common.add_command(group, "show", run_show, "show one live request")
    show.add_argument("id", metavar="ID")
    cancel = common.add_command(group, "cancel", run_cancel, "cancel a live request")
    cancel.add_argument("id", metavar="ID")
    common.alone(commands, group, "requests", "ls")


def run_ls(args: Namespace, out: Out) -> int:
    """List them."""
    with common.connect(args) as client:

        def show() -> int:
            rows = client.call(GetRequests(call=0)).rows
            if out.json:
                out.document({"requests": rows})
            else:
                out.table(_HEADER, [_cells(row) for row in rows])
            return 0

        return common.watch(args, out, client, show)


def run_show(args: Namespace, out: Out) -> int:
    """Show one, a line or an element for each of its choices."""
    with common.connect(args) as client:
        rows = client.call(GetRequests(call=0, id=args.id)).rows
    if out.json:
        out.document({"id": args.id, "choices": rows})
        return 0
    for row in rows:
        out.pairs(
            [
                ("id", f"{row.id} choice {row.choice}"),
                ("client", row.client),
                ("phase", f"{row.phase} for {seconds(row.age_s)} in all"),
                ("prompt", f"{row.prompt_tokens} tokens, {row.cached_tokens} from the prefix cache"),
                ("computed", f"{row.computed_tokens} tokens, {row.kv_blocks} KV blocks"),
                ("output", f"{row.output_tokens} of at most {row.max_tokens} tokens"),
                ("latency", f"TTFT {seconds(row.ttft_s)}, ITL p95 {seconds(row.itl_p95_s)}"),
                ("rate", f"{number(row.tokens_per_s)} tokens/s"),
                ("class", f"{row.slo_class}, priority {row.priority}, preempted {row.preemptions} times"),
            ]
        )
    return 0


def run_cancel(args: Namespace, out: Out) -> int:
    """Cancel one."""
    with common.connect(args, control=True) as client:
        reply = client.cancel(args.id)
    if out.json:
        out.document({"id": args.id, "text": reply.text})
    else:
        out.note(reply.text or f"cancelled {args.id}")
    return 0


_HEADER = ["ID", "PHASE", ">AGE", ">PROMPT", ">CACHED", ">OUT", ">TTFT", ">ITL p95", ">tok/s", ">KV", "CLIENT"]


def _cells(row: RequestRow) -> list[str]:
    name = f"{row.id}#{row.choice}" if row.choice else row.id
    return [
        name,
        row.phase,
        seconds(row.age_s),
        str(row.prompt_tokens),
        str(row.cached_tokens),
        str(row.output_tokens),
        seconds(row.ttft_s),
        seconds(row.itl_p95_s),
        number(row.tokens_per_s),
        str(row.kv_blocks),
        row.client,
    ]
