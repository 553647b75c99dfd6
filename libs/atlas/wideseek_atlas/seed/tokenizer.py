"""The seed policy's tokenizer: one token a name, a number and a piece of boilerplate, bytes for all else.

Invariants: a pure function of the atlas and the prompt pack; a space belongs to the words beside it, never to a name
or a number, so a name is the same token everywhere. Tool tags are added but not special: engines keep them in texts.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from wideseek_agent.pack import Pack

from wideseek_atlas.expert import Expert
from wideseek_atlas.expert_single import MAX_MEMBERS, SingleExpert
from wideseek_atlas.habits import SEED_MIXTURE
from wideseek_atlas.lexicon import NAMES, SMALL_NUMBERS, WORDS, YEARS
from wideseek_atlas.tasks import draw_tasks
from wideseek_atlas.world import URL_PREFIX, Split

CONTEXT = 2048
END_OF_TURN = "<|im_end|>"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", END_OF_TURN)
_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_PIECES = (
    r"https://atlas\.test/"
    r"|[A-Z][a-z]*"
    r"|[0-9]{1,4}"
    r"| ?[a-z]+(?:_[a-z]+)* ?"
    r"| ?[^\sA-Za-z0-9]+(?: [^\sA-Za-z0-9]+)* ?"
    r"| |\s+"
)
_SAMPLE_WORLDS = 250
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer, with the chat template in it."""
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in _SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in _TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=_SPECIAL[0],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=_TEMPLATE.read_text("utf-8"),
    )


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _vocabulary() -> dict[str, int]:
    splitter = _splitter()
    numbers = [str(n) for n in (*SMALL_NUMBERS, *YEARS)]
    seen = {piece for text in _sample() for piece, _ in splitter.pre_tokenize_str(text)}
    fixed = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *NAMES, *WORDS, *numbers, URL_PREFIX]
    words = list(dict.fromkeys([*fixed, *sorted(seen)]))
    return {word: number for number, word in enumerate(words)}


def _sample() -> Iterator[str]:
    """Texts that hold every piece of boilerplate a demonstration can have."""
    pack = Pack.load("seed", "en")
    for index in range(_SAMPLE_WORLDS):
        world, tasks = draw_tasks(Split.PRETRAIN, index, 4)
        rng = random.Random(index)
        experts = (
            Expert(world, pack, rng, SEED_MIXTURE.scaled(0.5)),
            SingleExpert(world, pack, rng, SEED_MIXTURE.scaled(0.5)),
        )
        for task in tasks:
            for expert in experts[: 1 + (len(task.rows) <= MAX_MEMBERS)]:
                for transcript in expert.demonstrate(task).transcripts:
                    for message in transcript.messages:
                        yield message.content
                        yield from (_call_text(call.name, call.arguments) for call in message.tool_calls)
        yield "system\nuser\nassistant\n"


def _call_text(name: str, arguments: dict[str, object]) -> str:
    return f"\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n"
