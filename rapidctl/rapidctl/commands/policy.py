"""`rapidctl policy`: which policy decides, and choose another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl.client import operator_name
from rapidctl.commands import common
from rapidctl.out import Out, safe_line
from rapidctl.wire import GetPartition, SetPolicy

if TYPE_CHECKING:
    from argparse import Namespace

POLICIES = "auto, rapid, atom, pdmux, serial:N, serial:all, hybrid[:N], shared[:N] or split:UNITS"


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "policy", "show or change the policy")
    common.add_command(group, "show", run_show, "the policy and its latest decision")
    parser = common.add_command(group, "set", run_set, "change the policy; an override stays in force")
    parser.add_argument("policy", metavar="P", help=POLICIES)
    common.add_if_epoch(parser)
    common.alone(commands, group, "policy", "show")


def run_show(args: Namespace, out: Out) -> int:
    """Show it."""
    with common.connect(args) as client:
        info = client.call(GetPartition(call=0))
    if out.json:
        out.document(
            {
                "policy": info.policy,
                "mode": info.plan.mode,
                "source": info.source,
                "epoch": info.epoch,
                "decision": info.plan.decision,
                "reason": info.plan.reason,
                "profile": info.profile,
            }
        )
    else:
        pinned = "  (an override is in force)" if info.override else ""
        out.pairs(
            [
                ("policy", info.policy + pinned),
                ("decision", f"{info.plan.decision}: {info.plan.mode}, {info.plan.reason}"),
                ("profile", info.profile or "no profile: rapidd calibrate"),
            ]
        )
    return 0


def run_set(args: Namespace, out: Out) -> int:
    """Change it."""
    with common.connect(args, control=True) as client:
        epoch = common.expected_epoch(args, client.call(GetPartition(call=0)))
        reply = client.call(SetPolicy(call=0, policy=args.policy, by=operator_name(), if_epoch=epoch))
    if out.json:
        out.document({"policy": args.policy, "epoch": reply.epoch, "text": reply.text})
    else:
        out.text(safe_line(f"epoch {reply.epoch}: {reply.text}"))
    return 0
