"""The policy's files, in transformers' format. Invariant: a folder is replaced file by file, each by atomic rename."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from wideseek_atlas.seed.model import SeedModel, Shape


def save_policy(model: SeedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write config, weights, tokenizer and chat template into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch)
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        _write(made / "config.json", _config(model.shape, tokenizer))
        _write(made / "generation_config.json", _ends(tokenizer))
        tokenizer.save_pretrained(made)
        for file in sorted(made.iterdir()):
            file.replace(folder / file.name)


def load_policy(folder: Path) -> tuple[SeedModel, PreTrainedTokenizerFast]:
    """Read a policy that `save_policy`, or transformers, wrote."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    model = SeedModel(
        Shape(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            head_size=config["head_dim"],
            intermediate=config["intermediate_size"],
            rope_base=config["rope_parameters"]["rope_theta"],
            positions=config["max_position_embeddings"],
            epsilon=config["rms_norm_eps"],
        )
    )
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    model.load_state_dict(weights, strict=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TypeError(f"{folder}: its tokenizer is a {type(tokenizer).__name__}, not a fast one")
    return model, tokenizer


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "rope_theta": shape.rope_base,
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "dtype": "float32",
        **_ends(tokenizer),
    }


def _ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
