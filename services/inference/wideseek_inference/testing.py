"""For tests: a tiny random Qwen3 model with a chat template in the style of Qwen3's, in two sets of weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from wideseek_contract.policies import WEIGHTS, publish_directory

from wideseek_inference.core.swap import Wanted

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
TEMPLATE = r"""{#- The habits of Qwen3's template that append-only rendering has to cope with. -#}
{%- if tools %}
    {{- "<|im_start|>system\n" }}
    {%- if messages[0].role == "system" %}
        {{- messages[0].content + "\n\n" }}
    {%- endif %}
    {{- "Callable tools:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" + (tool | tojson) }}
    {%- endfor %}
    {{- "\n</tools>\nCall one as <tool_call>\n{\"name\": ..., \"arguments\": {...}}\n</tool_call><|im_end|>\n" }}
{%- elif messages[0].role == "system" %}
    {{- "<|im_start|>system\n" + messages[0].content + "<|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {%- set ns.last_query = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- if ns.last_query < 0 %}
    {{- raise_exception("no user message") }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" %}
        {%- set text = message.content %}
        {%- if "</think>" in text and loop.index0 <= ns.last_query %}
            {%- set text = text.split("</think>")[-1].lstrip("\n") %}
        {%- endif %}
        {{- "<|im_start|>assistant\n" + text + "<|im_end|>\n" }}
    {%- elif message.role == "tool" %}
        {%- if messages[loop.index0 - 1].role != "tool" %}
            {{- "<|im_start|>user" }}
        {%- endif %}
        {{- "\n<tool_response>\n" + message.content + "\n</tool_response>" }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
            {{- "<|im_end|>\n" }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- "<think>\n\n</think>\n\n" }}
    {%- endif %}
{%- endif %}"""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, special tokens and tags: nothing merges, so every text has one tokenisation."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *letters))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def random_model(seed: int, vocabulary: int, hidden: int = 64, layers: int = 2, context: int = 512) -> Qwen3ForCausalLM:
    """Large initial weights, so that the likeliest tokens are plainly so."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        dtype="float32",
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config).to(torch.float32).eval()


@dataclass(frozen=True)
class Tiny:
    """Two models of one architecture, on disk."""

    a: Path
    b: Path
    published: Path

    def wanted(self, model: Path, version: int) -> Wanted:
        """Publish the weights of `model` as a policy version."""
        return self.publish({WEIGHTS: (model / WEIGHTS).read_bytes()}, version)

    def misshapen(self, version: int) -> Wanted:
        """Publish weights of another width."""
        other = random_model(3, 300, hidden=96)
        tensors = {k: v.contiguous() for k, v in other.state_dict().items() if k != "lm_head.weight"}
        return self.publish({WEIGHTS: save(tensors)}, version)

    def publish(self, files: dict[str, bytes], version: int) -> Wanted:
        """Publish files as a policy version."""
        uri = str(self.published / f"{version}")
        return Wanted(version, uri, publish_directory(uri, version, files))


def make_tiny(root: Path) -> Tiny:
    """Write both models below `root`."""
    tokenizer = tiny_tokenizer()
    for seed, name in enumerate("ab"):
        random_model(seed, len(tokenizer)).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return Tiny(root / "a", root / "b", root / "published")
