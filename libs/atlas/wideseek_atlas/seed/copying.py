"""How well a policy copies: its next-token accuracy on names and numbers in faultless validation episodes."""

import random
from collections import defaultdict

import torch
from transformers import PreTrainedTokenizerFast
from wideseek_agent.messages import AgentRole
from wideseek_agent.pack import Pack

from wideseek_atlas.expert import Expert
from wideseek_atlas.expert_single import MAX_MEMBERS, SingleExpert
from wideseek_atlas.habits import Mixture
from wideseek_atlas.lexicon import NAMES, SMALL_NUMBERS, WORDS, YEARS
from wideseek_atlas.seed.batches import collate
from wideseek_atlas.seed.model import SeedModel
from wideseek_atlas.seed.render import Renderer, Tokens
from wideseek_atlas.tasks import draw_tasks
from wideseek_atlas.world import Split

_WORLDS = 12
_ROWS = 8


class CopyCheck:
    """Measures on fixed validation worlds, a figure an agent role."""

    def __init__(self, renderer: Renderer, tokenizer: PreTrainedTokenizerFast) -> None:
        """Render the demonstrations once."""
        words = [*NAMES, *WORDS, *map(str, SMALL_NUMBERS), *map(str, YEARS)]
        self._content = torch.zeros(len(tokenizer) + 64, dtype=torch.bool)
        self._content[torch.tensor(tokenizer.convert_tokens_to_ids(words))] = True
        self._rows: dict[AgentRole, list[Tokens]] = defaultdict(list)
        pack = Pack.load("seed", "en")
        for index in range(_WORLDS):
            world, tasks = draw_tasks(Split.VALIDATION, index, 3)
            rng = random.Random(index)
            for task in tasks:
                for transcript in Expert(world, pack, rng, Mixture()).demonstrate(task).transcripts:
                    self._rows[transcript.role].append(renderer.conversation(transcript.messages))
                if len(task.rows) <= MAX_MEMBERS:
                    alone = SingleExpert(world, pack, rng, Mixture()).demonstrate(task).transcripts[0]
                    self._rows[alone.role].append(renderer.conversation(alone.messages))

    @torch.no_grad()
    def measure(self, model: SeedModel) -> dict[str, float]:
        """The share of names and numbers that the model puts first, by role."""
        return {str(role): round(self._share(model, rows), 4) for role, rows in self._rows.items()}

    def _share(self, model: SeedModel, rows: list[Tokens]) -> float:
        right = total = 0
        for start in range(0, min(len(rows), 48), _ROWS):
            ids, weights = collate(rows[start : start + _ROWS])
            wanted = weights[:, 1:] > 0
            target = ids[:, 1:][wanted]
            best = model.logits(model(ids)[:, :-1][wanted]).argmax(-1)
            content = self._content[target]
            right += int(((best == target) & content).sum())
            total += int(content.sum())
        return right / total
