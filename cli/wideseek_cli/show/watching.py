"""Following an episode to its end: a live tree on a terminal, plain lines elsewhere."""

from collections.abc import AsyncIterator

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from wideseek.lead.v1 import lead_service_pb2 as pb

from wideseek_cli.show.progress import EpisodeView
from wideseek_cli.show.tree import EpisodeTree


async def follow(
    messages: AsyncIterator[pb.WatchEpisodeResponse], console: Console, *, quiet: bool = False
) -> pb.Episode:
    """Show the messages of a watch until the last; returns the finished episode. `quiet` shows nothing."""
    view = EpisodeView()
    if quiet:
        async for message in messages:
            view.add(message)
    elif console.is_terminal:
        with Live(EpisodeTree(view), console=console, refresh_per_second=10):
            async for message in messages:
                view.add(message)
    else:
        async for message in messages:
            for line in view.add(message):
                console.print(escape(line), soft_wrap=True)
    return view.episode
