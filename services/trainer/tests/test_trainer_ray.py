"""Learners as Ray actors: two of them make the update of one."""

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from wideseek_trainer.adapters.learners import RayLearners, RayPlace, start_with_patience
from wideseek_trainer.core.errors import UpdateFailedError
from wideseek_trainer.core.learner import Learner, LearnerSpec
from wideseek_trainer.core.loss import Objective
from wideseek_trainer.core.sequences import TrainSequence


def batch(seed: int, count: int = 7) -> list[TrainSequence]:
    rng = random.Random(seed)
    sequences = []
    for _ in range(count):
        length = rng.randrange(6, 30)
        mask = np.array([0, *(rng.randrange(2) for _ in range(length - 2)), 1], np.int32)
        tokens = np.array([rng.randrange(64) for _ in range(length)], np.int32)
        logprobs = np.array([rng.uniform(-6, -2) for _ in range(length)], np.float32)
        sequences.append(TrainSequence(tokens, mask, logprobs, rng.uniform(-2, 2), 1 / (count * int(mask.sum()))))
    return sequences


@pytest.mark.timeout(240)
async def test_trainer_two_ray_learners_make_the_update_of_one(policy_dir: Path, tmp_path: Path) -> None:
    spec = LearnerSpec(str(policy_dir), 1e-2, 0.7, Objective(kl_coefficient=0.1), tokens_per_microbatch=64)
    alone = Learner(spec)
    expected = [alone.update(batch(1)), alone.update(batch(2))]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone.save(tmp_path / "one")
    learners = RayLearners(RayPlace(2, 1, 0, "", tmp_path / "ray"), spec)
    try:
        await learners.start(policy_dir, None)
        for number, figures in enumerate(expected, start=1):
            found = await learners.update(batch(number))
            assert found == pytest.approx(figures, rel=1e-4, abs=1e-6)
        await learners.save(tmp_path / "two")
        one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
        first = load_file(policy_dir / "model.safetensors")
        assert one.keys() == two.keys() == first.keys()
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, atol=2e-5)
        assert max(float(np.abs(one[name] - first[name]).max()) for name in one) > 5e-3, "the updates changed nothing"
        poisoned = batch(3)
        poisoned[0].logprobs[:] = np.nan
        with pytest.raises(UpdateFailedError, match="nan"):
            await learners.update(poisoned)
    finally:
        await learners.close()
    assert not (tmp_path / "ray").exists()


def test_a_start_that_fails_is_cleared_and_tried_again() -> None:
    calls: list[str] = []

    def start() -> None:
        calls.append("start")
        if calls.count("start") < 3:
            raise RuntimeError("node timed out")

    start_with_patience(start, lambda: calls.append("clear"))
    assert calls == ["start", "clear", "start", "clear", "start"]


def test_a_start_that_never_succeeds_says_why_and_leaves_nothing() -> None:
    calls: list[str] = []

    def start() -> None:
        calls.append("start")
        raise RuntimeError("node timed out")

    with pytest.raises(RuntimeError, match="timed out"):
        start_with_patience(start, lambda: calls.append("clear"), attempts=2)
    assert calls == ["start", "clear", "start", "clear"]
