"""One token sequence an agent, so that no token of a conversation is computed twice.

Invariants: a sequence is the exact concatenation of what the agent read and wrote; the mask is 1 on generated tokens
of trainable turns and nowhere else; logprobs stand where the mask does, elsewhere 0.
"""

from dataclasses import dataclass

import numpy as np

from wideseek_trainer.core.trajectory import Episode, Floats, Tokens, Turn


@dataclass(frozen=True, slots=True)
class AgentSequence:
    """An agent's conversation. `mask` (0 or 1) and `logprobs` are aligned with `tokens`."""

    agent: str
    tokens: Tokens
    mask: Tokens
    logprobs: Floats

    @property
    def output_tokens(self) -> int:
        """Tokens that are trained on."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """What a learner gets. `weight` is that of each masked token in the batch's loss; `advantage` holds for all."""

    tokens: Tokens
    mask: Tokens
    logprobs: Floats
    advantage: float
    weight: float


def agent_sequences(episode: Episode) -> list[AgentSequence]:
    """The sequences of an episode that have something to train on, in the order of its agents.

    A conversation ends for training before its first turn without tokens: what follows would lack its context.
    """
    if episode.stop.blameless:
        return []
    made = (_sequence(agent, turns) for agent, turns in episode.turns.items())
    return [sequence for sequence in made if sequence.output_tokens]


def _sequence(agent: str, turns: tuple[Turn, ...]) -> AgentSequence:
    tokens: list[Tokens] = []
    mask: list[Tokens] = []
    logprobs: list[Floats] = []
    for turn in turns:
        if not len(turn.prompt):
            break
        usable = turn.trainable and len(turn.logprobs) == len(turn.output)
        tokens += [turn.prompt, turn.output]
        mask += [np.zeros(len(turn.prompt), np.int32), np.full(len(turn.output), int(usable), np.int32)]
        logprobs += [np.zeros(len(turn.prompt), np.float32)]
        logprobs += [turn.logprobs if usable else np.zeros(len(turn.output), np.float32)]
    if not tokens:
        return AgentSequence(agent, np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    return AgentSequence(agent, np.concatenate(tokens), np.concatenate(mask), np.concatenate(logprobs))


def token_weight(episodes: int, agents: int, output_tokens: int) -> float:
    """The weight of one token: 1/episodes of the batch, 1/agents of the episode, 1/output tokens of the agent.

    Source: WideSeek-R1, arXiv 2602.04634, the dual-level reweighting. All weights of a batch add up to 1.
    """
    return 1.0 / (episodes * agents * output_tokens)
