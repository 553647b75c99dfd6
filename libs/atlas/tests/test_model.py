"""The network against transformers' own, the sampler against the network, and a training that learns."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from wideseek_atlas import seed_policy_path
from wideseek_atlas.habits import Mixture
from wideseek_atlas.seed.batches import Batches, collate
from wideseek_atlas.seed.checkpoint import load_policy, save_policy
from wideseek_atlas.seed.initial import plant_previous_token_heads
from wideseek_atlas.seed.model import SeedModel, Shape
from wideseek_atlas.seed.render import Renderer, Tokens
from wideseek_atlas.seed.sampler import sample
from wideseek_atlas.seed.train import Trainer

MODEL, TOKENIZER = load_policy(seed_policy_path())
STOP = TOKENIZER.convert_tokens_to_ids("<|im_end|>")


def prompts(count: int = 5) -> list[list[int]]:
    rng = random.Random(3)
    names = [f"<|im_start|>user\nFind for {'Bado ' * rng.randint(1, 30)}<|im_end|>\n<|im_start|>assistant\n"]
    return [TOKENIZER.encode(text, add_special_tokens=False) for text in names * count]


def test_the_logits_are_those_of_transformers() -> None:
    theirs = AutoModelForCausalLM.from_pretrained(seed_policy_path(), dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    ids = torch.randint(0, len(TOKENIZER), (2, 300), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(MODEL.logits(MODEL(ids)), expected, atol=2e-4, rtol=1e-4)


def test_a_saved_policy_loads_as_it_was(tmp_path: Path) -> None:
    save_policy(MODEL, TOKENIZER, tmp_path / "p")
    again, tokenizer = load_policy(tmp_path / "p")
    assert again.shape == MODEL.shape
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), MODEL.parameters(), strict=True))
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(seed_policy_path()).chat_template


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_samples_logprobs_are_those_of_a_full_pass(temperature: float) -> None:
    generator = torch.Generator().manual_seed(2)
    given = [prompt[: 8 + 3 * n] for n, prompt in enumerate(prompts())]
    drawn = sample(MODEL, given, stop=STOP, limit=40, temperature=temperature, generator=generator)
    for prompt, one in zip(given, drawn, strict=True):
        with torch.no_grad():
            logits = MODEL.logits(MODEL(torch.tensor([prompt + one.ids])))[0, len(prompt) - 1 : -1]
        scores = F.log_softmax(logits / (temperature or 1.0), -1)
        expected = scores[torch.arange(len(one.ids)), torch.tensor(one.ids)]
        torch.testing.assert_close(torch.tensor(one.logprobs), expected, atol=1e-3, rtol=1e-3)
        if temperature == 0.0:
            assert logits.argmax(-1).tolist() == one.ids


def test_sampling_stops_at_the_end_of_the_context() -> None:
    room = MODEL.shape.positions
    (full,) = sample(MODEL, [[5] * room], stop=STOP, limit=9, temperature=0.0, generator=torch.Generator())
    (close,) = sample(MODEL, [[5] * (room - 3)], stop=-1, limit=9, temperature=0.0, generator=torch.Generator())
    assert (len(full.ids), len(close.ids)) == (0, 3)


def test_planted_heads_look_one_and_two_tokens_back() -> None:
    torch.manual_seed(0)
    model = SeedModel(Shape(300))
    plant_previous_token_heads(model)
    layer = model.layers[0]
    x = model.model.embed_tokens(torch.randint(0, 300, (1, 64)))
    q, k, _ = layer.self_attn.project(layer.input_layernorm(x), (model.cosine[:64], model.sine[:64]))
    scores = q[0, :2] @ k[0, 0].T
    for head, offset in ((0, 1), (1, 2)):
        seen = scores[head].masked_fill(torch.ones(64, 64).triu(1).bool(), float("-inf")).argmax(-1)
        assert seen[offset:].tolist() == list(range(64 - offset))


def small_run() -> list[float]:
    torch.manual_seed(4)
    model = SeedModel(Shape(2752, hidden=32, layers=2, heads=2, kv_heads=1, head_size=16, intermediate=64))
    batches = Batches(Renderer(TOKENIZER), 4)
    trainer = Trainer(model, 3e-3, 42)
    drills = [float(trainer.update(batches.drill(384, lists_only=False), step)) for step in range(40)]
    return drills + [float(trainer.update(batches.episodes(512, Mixture()), step)) for step in (40, 41)]


def test_training_repeats_and_learns() -> None:
    losses = small_run()
    assert losses == small_run()
    assert losses[39] < losses[0] - 0.5


def test_padding_carries_no_weight() -> None:
    ids, weights = collate([Tokens((1, 2, 3), (False, True, True)), Tokens((4,), (True,))])
    assert ids.shape == weights.shape == (2, 32)
    assert weights.sum(1).tolist() == [2.0, 1.0]
