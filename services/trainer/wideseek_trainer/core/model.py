"""The policy as the learner holds it: a transformers causal LM, and the log-probabilities of generated tokens.

Invariants: hidden states are computed once a sequence; the vocabulary projection runs only where a token is trained
on, in chunks, so that memory does not grow with prompt length times vocabulary.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from wideseek_trainer.core.errors import PolicyUnusableError
from wideseek_trainer.core.sequences import TrainSequence

#: Positions projected onto the vocabulary at a time.
CHUNK = 4096


def load_model(directory: Path, device: torch.device) -> nn.Module:
    """The model of a policy directory, in float32: the master weights.

    Raises:
        PolicyUnusableError: it cannot be loaded.
    """
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PolicyUnusableError(f"{directory}: {error}", directory=directory) from error
    return model.to(device).train()


def policy_dtype(model: nn.Module, directory: Path) -> torch.dtype:
    """The type in which the policy's files hold it, so that every version has the same."""
    text = (directory / "config.json").read_text(encoding="utf-8")
    for name, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        if f'"{name}"' in text:
            return kind
    return torch.float32


def export(model: nn.Module, kind: torch.dtype) -> bytes:
    """The weights as a safetensors file, tied weights once."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            tensors[name] = value.detach().to("cpu", kind if value.is_floating_point() else value.dtype).contiguous()
    return save(tensors, {"format": "pt"})


def token_logprobs(
    model: nn.Module, sequences: Sequence[TrainSequence], temperature: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy (nats, no gradient) of every masked token, sequence after sequence.

    The sequences run as one right-padded batch; causal attention keeps the padding out of sight.
    """
    width = max(len(sequence.tokens) for sequence in sequences)
    tokens = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence.tokens)] = torch.tensor(sequence.tokens)
        mask[row, : len(sequence.tokens)] = torch.tensor(sequence.mask) > 0
    tokens, mask = tokens.to(device), mask.to(device)
    mask[:, 0] = False  # nothing comes before the first token that could predict it
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state  # type: ignore[operator]
    hidden, targets = hidden[:, :-1][mask[:, 1:]], tokens[:, 1:][mask[:, 1:]]
    head: nn.Module = model.lm_head  # type: ignore[assignment]
    parts = [
        checkpoint(_project, head, hidden[i : i + CHUNK], targets[i : i + CHUNK], temperature, use_reentrant=False)
        if len(hidden) > CHUNK
        else _project(head, hidden, targets, temperature)
        for i in range(0, max(1, len(hidden)), CHUNK)
    ]
    return torch.cat([logprob for logprob, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _project(head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # never less than float32
    logprobs = torch.log_softmax(exact / temperature, dim=-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], entropy


def masked(sequences: Iterable[TrainSequence], field: str, device: torch.device) -> Tensor:
    """`logprobs`, `advantage` or `weight` of every masked token, in the order of `token_logprobs`."""
    parts = []
    for sequence in sequences:
        keep = torch.tensor(sequence.mask) > 0
        keep[0] = False
        value = getattr(sequence, field)
        parts.append(torch.tensor(value)[keep] if field == "logprobs" else torch.full((int(keep.sum()),), float(value)))
    return torch.cat(parts).to(device)
