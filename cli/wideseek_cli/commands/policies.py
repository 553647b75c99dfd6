"""`policies list` and `policies promote`."""

from datetime import datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.table import Table
from wideseek.trainer.v1 import trainer_service_pb2 as pb

from wideseek_cli.running import client, out, run

app = typer.Typer(help="The versions of the policy.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most versions to list.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="The answer of the service as JSON.")] = False,
) -> None:
    """List policy versions, newest first; the one in use is marked."""
    run(_list(limit, as_json))


async def _list(limit: int, as_json: bool) -> None:
    async with client() as caller:
        page = await caller.list_policies(page_size=limit)
    if as_json:
        out.print(MessageToJson(page, preserving_proto_field_name=True), soft_wrap=True, markup=False)
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("version", justify="right")
    table.add_column("run", no_wrap=True)
    for column in ("update", "item-F1", "published"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("directory", overflow="fold")
    for policy in page.policies:
        table.add_row(*_row(policy))
    out.print(table)


def _row(policy: pb.Policy) -> list[str]:
    f1 = f"{policy.metrics['item_f1']:.3f}" if "item_f1" in policy.metrics else ""
    time = datetime.fromtimestamp(policy.create_time.ToSeconds()).strftime("%H:%M:%S")
    update = str(policy.step) if policy.step else ""
    return ["→" if policy.current else "", str(policy.version), policy.run_id, update, f1, time, policy.uri]


@app.command()
def promote(version: Annotated[int, typer.Argument(min=0, help="The version, an older one too.")]) -> None:
    """Make a version the one that inference serves."""
    policy = run(_promote(version))
    out.print(f"policy version {policy.version} is announced; inference swaps to it")


async def _promote(version: int) -> pb.Policy:
    async with client() as caller:
        return await caller.promote_policy(version)
