"""The maths against references written here from the equations, without torch, and by finite differences."""

import math
import random
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wideseek_trainer.core.advantage import advantages, has_signal, shuffled
from wideseek_trainer.core.learner import Learner, LearnerSpec
from wideseek_trainer.core.loss import Objective, grpo_loss
from wideseek_trainer.core.model import load_model, masked, token_logprobs
from wideseek_trainer.core.packing import pack, share
from wideseek_trainer.core.sequences import TrainSequence, token_weight

CPU = torch.device("cpu")


def reference_loss(o: Objective, rows: list[tuple[float, ...]]) -> float:
    """Sum over tokens of (new, old, rollout, reference, advantage, weight)."""
    total = 0.0
    for new, old, rollout, reference, advantage, weight in rows:
        ratio = math.exp(new - old)
        clipped = min(max(ratio, 1 - o.clip_low), 1 + o.clip_high)
        gain = min(ratio * advantage, clipped * advantage)
        if advantage < 0:
            gain = max(gain, o.dual_clip * advantage)
        correction = min(math.exp(old - rollout), o.importance_cap)
        k3 = math.exp(reference - new) - (reference - new) - 1
        total += weight * (o.kl_coefficient * k3 - correction * gain)
    return total


def columns(rows: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


def loss_of(o: Objective, rows: list[tuple[float, ...]]) -> torch.Tensor:
    new, old, rollout, reference, advantage, weight = columns(rows)
    return grpo_loss(o, new.requires_grad_(), old, rollout, advantage, weight, reference).loss


logprob = st.floats(-8, -0.01)
token = st.tuples(logprob, logprob, logprob, logprob, st.floats(-3, 3), st.floats(0, 1))


@given(st.lists(token, min_size=1, max_size=20), st.sampled_from([0.0, 0.001, 0.3]))
def test_trainer_loss_equals_the_equations(rows: list[tuple[float, ...]], kl: float) -> None:
    objective = Objective(kl_coefficient=kl)
    assert loss_of(objective, rows).item() == pytest.approx(reference_loss(objective, rows), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("new", "advantage", "expected"),
    [
        (math.log(1.5), 1.0, -1.28),  # clipped from above
        (math.log(0.5), 1.0, -0.5),  # a gain that shrinks is not clipped
        (math.log(0.5), -1.0, 0.8),  # clipped from below
        (math.log(5.0), -1.0, 5.0),  # a loss that grows is not clipped ...
        (math.log(50.0), -1.0, 10.0),  # ... before the dual clip
    ],
)
def test_trainer_clipping_at_its_corners(new: float, advantage: float, expected: float) -> None:
    row = (new - 60, -60.0, -60.0, -60.0, advantage, 1.0)
    assert loss_of(Objective(), [row]).item() == pytest.approx(expected, rel=1e-6)


def test_trainer_importance_correction_is_capped_and_carries_no_gradient() -> None:
    new = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    rollout = torch.tensor([-1.2, -4.0], dtype=torch.float64)
    parts = grpo_loss(Objective(), new, new, rollout, torch.ones(2), torch.ones(2))
    (gradient,) = torch.autograd.grad(parts.loss, new)
    # With old = new the ratio is 1 and its gradient is 1: what is left is minus the capped weight.
    assert gradient.tolist() == pytest.approx([-math.exp(0.2), -2.0])
    assert parts.importance_max == pytest.approx(math.exp(3.0))
    assert parts.sums["importance_cut_fraction"] == 1.0


def test_trainer_loss_gradient_by_finite_differences() -> None:
    rng = random.Random(3)
    rows = [tuple(rng.uniform(-4, -0.1) for _ in range(4)) + (rng.uniform(-2, 2), rng.random()) for _ in range(40)]
    objective = Objective(kl_coefficient=0.2)
    new, old, rollout, reference, advantage, weight = columns(rows)
    loss = grpo_loss(objective, new.requires_grad_(), old, rollout, advantage, weight, reference).loss
    (gradient,) = torch.autograd.grad(loss, new)
    step = 1e-6
    for index, row in enumerate(rows):
        up, down = ([(row[0] + d, *row[1:])] for d in (step, -step))
        slope = (reference_loss(objective, up) - reference_loss(objective, down)) / (2 * step)
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@given(st.lists(st.floats(-1, 2), min_size=2, max_size=16))
def test_trainer_advantages_equal_the_equation(rewards: list[float]) -> None:
    mean, deviation = statistics.fmean(rewards), statistics.stdev(rewards)
    expected = [(reward - mean) / (deviation + 1e-6) for reward in rewards]
    assert advantages(rewards) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert sum(advantages(rewards)) == pytest.approx(0, abs=1e-6)


def test_trainer_signal_and_shuffle() -> None:
    assert not has_signal([0.3, 0.3, 0.3])
    assert has_signal([0.3, 0.3, 0.31])
    values = [float(number) for number in range(20)]
    assert shuffled(values, "1/2") == shuffled(values, "1/2") != values
    assert shuffled(values, "1/3") != shuffled(values, "1/2")
    assert sorted(shuffled(values, "1/2")) == values


def test_trainer_token_weights_add_up_to_one() -> None:
    episodes = [[3, 5, 1], [7], [2, 2]]  # output tokens of each agent
    weights = [token_weight(3, len(agents), n) * n for agents in episodes for n in agents]
    assert sum(weights) == pytest.approx(1)
    assert token_weight(3, 3, 5) == pytest.approx(1 / 3 / 3 / 5)


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000), st.integers(1, 5))
def test_trainer_packing_keeps_every_sequence_whole(lengths: list[int], budget: int, world: int) -> None:
    batches = pack(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget
    shares = [index for rank in range(world) for index in share(len(batches), rank, world)]
    assert sorted(shares) == list(range(len(batches)))


def sequences(seed: int, count: int = 6) -> list[TrainSequence]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        length = rng.randrange(4, 25)
        mask = np.array([0, *(rng.randrange(2) for _ in range(length - 2)), 1], np.int32)
        tokens = np.array([rng.randrange(64) for _ in range(length)], np.int32)
        logprobs = np.array([rng.uniform(-6, -2) for _ in range(length)], np.float32)
        made.append(TrainSequence(tokens, mask, logprobs, rng.uniform(-2, 2), 1 / (count * int(mask.sum()))))
    return made


def test_trainer_logprobs_equal_a_plain_full_forward(policy_dir: Path) -> None:
    model = load_model(policy_dir, CPU)
    batch = sequences(1)
    found, entropy = token_logprobs(model, batch, 0.7, CPU)
    expected, expected_entropy = [], []
    for one in batch:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(one.tokens).long()[None]).logits[0] / 0.7
        every = torch.log_softmax(logits, -1)
        for position in np.flatnonzero(one.mask):
            expected.append(float(every[position - 1, one.tokens[position]]))
            expected_entropy.append(float(-(every[position - 1].exp() * every[position - 1]).sum()))
    assert found.tolist() == pytest.approx(expected, abs=2e-5)
    assert entropy.tolist() == pytest.approx(expected_entropy, abs=2e-5)
    assert len(masked(batch, "weight", CPU)) == len(found)


def test_trainer_chunked_projection_changes_nothing(policy_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(policy_dir, CPU)
    whole, _ = token_logprobs(model, sequences(1), 0.7, CPU)
    weight = model.get_parameter("model.embed_tokens.weight")
    (gradient,) = torch.autograd.grad(whole.sum(), weight)
    monkeypatch.setattr("wideseek_trainer.core.model.CHUNK", 5)  # a constant of the machine, not of the maths
    parts, _ = token_logprobs(model, sequences(1), 0.7, CPU)
    (again,) = torch.autograd.grad(parts.sum(), weight)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(gradient, again, atol=1e-4)


def batch_loss(
    model: torch.nn.Module, batch: list[TrainSequence], objective: Objective, old: torch.Tensor
) -> torch.Tensor:
    new, _ = token_logprobs(model, batch, 0.7, CPU)
    rollout, advantage, weight = (masked(batch, name, CPU).double() for name in ("logprobs", "advantage", "weight"))
    return grpo_loss(objective, new, old, rollout, advantage, weight, old - 0.1).loss


def test_trainer_model_gradient_by_finite_differences(policy_dir: Path) -> None:
    model = load_model(policy_dir, CPU).double()
    batch, objective = sequences(2, 3), Objective(kl_coefficient=0.1)
    old = token_logprobs(model, batch, 0.7, CPU)[0].detach()
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(batch_loss(model, batch, objective, old), list(named.values()))
    rng, step = random.Random(5), 2e-3  # transformers' RMSNorm computes in float32 whatever the model: no smaller
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        index = rng.randrange(parameter.numel())
        flat = parameter.detach().view(-1)
        slopes = []
        for sign in (1, -1):
            flat[index] += sign * step
            with torch.no_grad():
                slopes.append(float(batch_loss(model, batch, objective, old)))
            flat[index] -= sign * step
        numeric = (slopes[0] - slopes[1]) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(numeric, rel=5e-3, abs=2e-4), name


@settings(max_examples=8, deadline=None)
@given(budget=st.integers(1, 400), seed=st.integers(0, 3))
def test_trainer_update_does_not_depend_on_packing(policy_dir: Path, budget: int, seed: int) -> None:
    figures = []
    for tokens in (10_000, budget):
        spec = LearnerSpec(str(policy_dir), 1e-3, 0.7, Objective(kl_coefficient=0.1), tokens_per_microbatch=tokens)
        learner = Learner(spec)
        figures.append([learner.update(sequences(seed)), learner.update(sequences(seed + 10))])
    for one, other in zip(*figures, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_trainer_golden_update(policy_dir: Path) -> None:
    learner = Learner(LearnerSpec(str(policy_dir), 1e-2, 0.7))
    losses = [learner.update(sequences(seed))["loss"] for seed in (1, 2, 1)]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [0.50412, 0.36928, 0.21364]  # a change of these is a change of the training: say so in the changelog


def test_trainer_update_raises_the_likelihood_of_what_was_good(policy_dir: Path) -> None:
    learner = Learner(LearnerSpec(str(policy_dir), 1e-2, 0.7))
    good, bad = sequences(1, 2)
    batch = [TrainSequence(s.tokens, s.mask, s.logprobs, a, s.weight) for s, a in ((good, 1.0), (bad, -1.0))]
    model = load_model(policy_dir, CPU)
    exact = [token_logprobs(model, [s], 0.7, CPU)[0].detach() for s in batch]
    for sequence, values in zip(batch, exact, strict=True):
        sequence.logprobs[sequence.mask > 0] = values.numpy()
    before = [float(value.mean()) for value in exact]
    for _ in range(5):
        figures = learner.update(batch)
    after = [token_logprobs(learner._model, [s], 0.7, CPU)[0].detach().mean().item() for s in batch]
    assert after[0] > before[0] + 0.1
    assert after[1] < before[1] - 0.1
    assert figures["learning_rate"] == 1e-2


def test_trainer_learner_state_goes_on_exactly(policy_dir: Path, tmp_path: Path) -> None:
    spec = LearnerSpec(str(policy_dir), 1e-2, 0.7)
    whole = Learner(spec)
    whole.update(sequences(1))
    whole.save(tmp_path)
    rest = Learner(spec)
    rest.load(tmp_path)
    assert whole.update(sequences(2)) == rest.update(sequences(2))
    for one, other in zip(whole._parameters, rest._parameters, strict=True):
        assert torch.equal(one, other)


def test_trainer_empty_batch_changes_nothing(policy_dir: Path, tmp_path: Path) -> None:
    learner = Learner(LearnerSpec(str(policy_dir), 1e-2, 0.7))
    before = [parameter.clone() for parameter in learner._parameters]
    assert learner.update([])["grad_norm"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner._parameters, strict=True))
