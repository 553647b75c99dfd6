"""The tree of agents, live."""

import time

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from wideseek_cli.show.progress import AgentPhase, AgentView, EpisodeView, state_name

_MARKS = {
    AgentPhase.DONE: ("✓", "green"),
    AgentPhase.FAILED: ("✗", "red"),
    AgentPhase.STOPPED: ("■", "yellow"),
}


class EpisodeTree:
    """Renders an `EpisodeView` as it is at that moment: for `rich.live.Live`, or once at the end."""

    def __init__(self, view: EpisodeView) -> None:
        """Show `view`."""
        self._view = view
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The question, a line an agent, the totals."""
        now = time.time()
        table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("agent", no_wrap=True)
        table.add_column("works on", no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column("last step", no_wrap=True, overflow="ellipsis", ratio=3)
        for name in ("turns", "tools", "tokens", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        for agent, last in _in_order(self._view):
            table.add_row(
                self._name(agent, last, now),
                Text(" ".join(agent.prompt.split()), "bold" if not agent.parent else ""),
                Text(agent.doing, "red" if agent.phase is AgentPhase.FAILED else "dim"),
                str(agent.turns),
                str(agent.tool_calls),
                str(agent.output_tokens),
                f"{agent.seconds(now):.1f} s",
            )
        yield Group(table, self._foot(now))

    def _name(self, agent: AgentView, last: bool, now: float) -> Text:
        branch = "" if not agent.parent else ("└─ " if last else "├─ ")
        if agent.phase is AgentPhase.WORKING:
            mark = self._spinner.render(now)
            sign = mark if isinstance(mark, Text) else Text("●")
        else:
            glyph, colour = _MARKS[agent.phase]
            sign = Text(glyph, colour)
        return Text.assemble((branch, "dim"), sign, " ", (agent.agent_id, Style(bold=not agent.parent)))

    def _foot(self, now: float) -> Text:
        view = self._view
        seconds = (view.ended or now) - view.began if view.began else 0.0
        state = state_name(view.episode)
        colour = {"running": "cyan", "succeeded": "green", "failed": "red"}.get(state.split()[0], "yellow")
        return Text.assemble((state, f"bold {colour}"), f" · {view.totals} · {seconds:.1f} s")


def _in_order(view: EpisodeView) -> list[tuple[AgentView, bool]]:
    """Agents, each behind its parent, with whether it is its parent's last."""
    ordered = []
    for top in (agent for agent in view.agents.values() if not agent.parent):
        ordered.append((top, True))
        children = [agent for agent in view.agents.values() if agent.parent == top.agent_id]
        ordered.extend((child, child is children[-1]) for child in children)
    return ordered
