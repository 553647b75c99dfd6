"""The atlas: seeded fictional worlds to ask about, and the seed policy that was trained on them.

Invariant: importing this package needs neither torch nor transformers; `wideseek_atlas.seed` does.
"""

from pathlib import Path

from wideseek_atlas.tasks import Task, draw_tasks
from wideseek_atlas.world import Group, Page, Split, World, make_world

__all__ = ["Group", "Page", "Split", "Task", "World", "draw_tasks", "make_world", "seed_policy_path"]


def seed_policy_path() -> Path:
    """The folder of the seed policy, in transformers' format."""
    return Path(__file__).parent / "seed_policy"
