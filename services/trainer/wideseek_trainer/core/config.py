"""The configuration of a run, with its defaults and what may not be.

Invariant: a `RunConfig` that exists is usable; the error names the field of the request and the figure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wideseek_trainer.core.errors import ConfigError
from wideseek_trainer.core.reward import DEFAULT_WEIGHTS

MAX_STEPS = 1_000_000
MAX_GROUP = 4096
MAX_IN_FLIGHT = 100_000


@dataclass(frozen=True)
class RunConfig:
    """What to train on, and how. Names and meaning are those of trainer.v1.TrainingConfig."""

    task_set_uri: str
    steps: int = 10
    questions_per_step: int = 8
    group_size: int = 8
    learning_rate: float = 3e-4
    kl_coefficient: float = 0.0
    max_staleness: int = 2
    max_episodes_in_flight: int = 64
    seed: int = 0
    shuffle_advantages: bool = False
    reward_weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    temperature: float = 0.7
    max_output_tokens: int = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: the first that cannot be used.
        """
        if not self.task_set_uri:
            raise ConfigError("config.task_set_uri", "is empty; it names a JSONL file of tasks")
        _between("config.steps", self.steps, 1, MAX_STEPS)
        _between("config.questions_per_step", self.questions_per_step, 1, MAX_GROUP)
        _between("config.group_size", self.group_size, 2, MAX_GROUP)
        _between("config.max_episodes_in_flight", self.max_episodes_in_flight, 1, MAX_IN_FLIGHT)
        _between("config.max_staleness", self.max_staleness, 0, MAX_STEPS)
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            raise ConfigError(
                "config.learning_rate", f"{self.learning_rate} is not in (0, 1]", value=self.learning_rate
            )
        if not (math.isfinite(self.kl_coefficient) and self.kl_coefficient >= 0):
            raise ConfigError("config.kl_coefficient", f"{self.kl_coefficient} is below 0", value=self.kl_coefficient)
        if not (math.isfinite(self.temperature) and 0 < self.temperature <= 2):
            figure = self.temperature
            raise ConfigError(
                "config.episode.sampling.temperature",
                f"{figure} is not in (0, 2]; training needs samples",
                value=figure,
            )
        for name, weight in self.reward_weights.items():
            if name not in DEFAULT_WEIGHTS:
                known = ", ".join(DEFAULT_WEIGHTS)
                raise ConfigError("config.reward_weights", f"no term {name!r}; there are {known}", term=name)
            if not math.isfinite(weight):
                raise ConfigError("config.reward_weights", f"{name} = {weight} is not finite", term=name, value=weight)

    @property
    def episodes_per_step(self) -> int:
        """Episodes of one step."""
        return self.questions_per_step * self.group_size


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(name, f"{value} is not between {low} and {high}", value=value, least=low, most=high)
