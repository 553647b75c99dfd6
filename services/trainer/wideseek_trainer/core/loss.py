"""The clipped policy objective, token by token.

With new, old, rollout and reference the log-probabilities of a token (learner now, learner before the update, sampled,
run's first policy), A its episode's advantage and w its weight:

    r    = exp(new - old)
    s    = min(r A, clip(r, 1 - low, 1 + high) A);  where A < 0:  s = max(s, dual A)
    c    = min(exp(old - rollout), cap)                          a constant: no gradient
    k3   = exp(reference - new) - (reference - new) - 1
    loss = sum of w (kl k3 - c s)

Sources: PPO (1707.06347) with DAPO's two-sided clip (2503.14476), dual clip (1912.09729), GRPO (2402.03300) with
Schulman's k3, truncated importance sampling against the sampler's log-probabilities. With one update a batch `old` is
`new` without its gradient: then r = 1, clipping never acts, and c alone corrects for stale or differing samples.
All log-probabilities are at the rollout temperature and over the whole vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """The constants of the loss."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 10.0
    importance_cap: float = 2.0
    kl_coefficient: float = 0.0


@dataclass(frozen=True)
class LossParts:
    """The loss of some tokens, to be summed over micro-batches, and sums for the log (no gradient)."""

    loss: Tensor
    sums: dict[str, float]
    importance_max: float


def grpo_loss(
    objective: Objective,
    new: Tensor,
    old: Tensor,
    rollout: Tensor,
    advantage: Tensor,
    weight: Tensor,
    reference: Tensor | None = None,
) -> LossParts:
    """The loss over tokens; every argument has one entry a token. Gradient flows through `new` only."""
    old = old.detach()
    ratio = torch.exp(new - old)
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    surrogate = torch.where(advantage < 0, torch.maximum(surrogate, objective.dual_clip * advantage), surrogate)
    importance = torch.exp(old - rollout)
    correction = importance.clamp(max=objective.importance_cap)
    per_token = -correction * surrogate
    kl = torch.zeros_like(new)
    if reference is not None:
        distance = reference.detach() - new
        kl = torch.exp(distance) - distance - 1
        per_token = per_token + objective.kl_coefficient * kl
    loss = (weight * per_token).sum()
    with torch.no_grad():
        sums = {
            "loss": float(loss.detach()),
            "kl": float((weight * kl).sum()),
            "clip_fraction": float((weight * (ratio * advantage != surrogate)).sum()),
            "importance_mean": float((weight * importance).sum()),
            "importance_cut_fraction": float((weight * (importance > objective.importance_cap)).sum()),
        }
        return LossParts(loss, sums, float(importance.max()) if len(importance) else 0.0)
