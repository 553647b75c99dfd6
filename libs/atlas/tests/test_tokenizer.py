"""The tokenizer, the chat template, and the append-only rendering."""

import random
from typing import Any

import pytest
from transformers import AutoTokenizer
from wideseek_agent.messages import AgentRole, Message, Role, ToolCall
from wideseek_agent.pack import Pack, Report
from wideseek_atlas import Split, draw_tasks, make_world, seed_policy_path
from wideseek_atlas.expert import Expert
from wideseek_atlas.expert_single import MAX_MEMBERS, SingleExpert
from wideseek_atlas.habits import SEED_MIXTURE
from wideseek_atlas.lexicon import NAMES, SMALL_NUMBERS, WORDS, YEARS
from wideseek_atlas.seed.render import Renderer
from wideseek_atlas.seed.tokenizer import CONTEXT, build_tokenizer
from wideseek_atlas.transcript import Transcript

TOKENIZER = AutoTokenizer.from_pretrained(seed_policy_path())
RENDERER = Renderer(TOKENIZER)
PACK = Pack.load("seed", "en")


def transcripts() -> list[Transcript]:
    found: list[Transcript] = []
    for index in range(25):
        world, tasks = draw_tasks(Split.HELDOUT, index, 2)
        rng = random.Random(index)
        for task in tasks:
            found += Expert(world, PACK, rng, SEED_MIXTURE).demonstrate(task).transcripts
            if len(task.rows) <= MAX_MEMBERS:
                found += SingleExpert(world, PACK, rng, SEED_MIXTURE).demonstrate(task).transcripts
    return found


TRANSCRIPTS = transcripts()


def test_the_committed_tokenizer_is_the_one_that_is_built() -> None:
    built = build_tokenizer()
    assert built.get_vocab() == TOKENIZER.get_vocab()
    assert built.chat_template == TOKENIZER.chat_template


@pytest.mark.parametrize("words", [NAMES, WORDS, [str(n) for n in (*SMALL_NUMBERS, *YEARS)], ["https://atlas.test/"]])
def test_an_entry_of_the_lexicon_is_one_token_wherever_it_stands(words: list[str]) -> None:
    for word in words:
        (token,) = RENDERER.encode(word)
        assert all(token in RENDERER.encode(text.format(word)) for text in ("of {}.", "| {} | b", '"{}: a', "({})"))


@pytest.mark.parametrize("text", ["Bado, Kru: 12.", "Größe 漢字 🙂\n\n  x", "<tool_call>\n{}\n</tool_call>", " a  b\t"])
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert TOKENIZER.decode(RENDERER.encode(text)) == text


def test_tool_tags_survive_decoding_without_special_tokens() -> None:
    ids = RENDERER.encode("<|im_start|><tool_call>a</tool_call><|im_end|>")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<tool_call>a</tool_call>"


def test_parts_appended_are_the_whole_rendered() -> None:
    for transcript in TRANSCRIPTS:
        parts = RENDERER.conversation(transcript.messages).ids
        whole = RENDERER.encode(RENDERER.text(transcript.messages, prompt=False))
        assert [*parts, *RENDERER.encode("\n")] == whole
        assert len(whole) < CONTEXT


def test_what_is_trained_is_what_the_agent_says() -> None:
    for transcript in TRANSCRIPTS[:40]:
        tokens = RENDERER.conversation(transcript.messages)
        said = TOKENIZER.decode([i for i, t in zip(tokens.ids, tokens.trained, strict=True) if t])
        assert said.count("<|im_end|>") == transcript.turn
        assert "<|im_start|>" not in said
        assert "<tool_response>" not in said


def test_demonstrations_fall_back_to_no_bytes() -> None:
    single = {t for t, i in TOKENIZER.get_vocab().items() if len(t) == 1 and t.isalpha() and t.isascii()} - {"A"}
    for transcript in TRANSCRIPTS:
        tokens = TOKENIZER.convert_ids_to_tokens(RENDERER.conversation(transcript.messages).ids)
        assert not single & set(tokens)


def test_the_template_writes_the_tool_format_of_qwen3() -> None:
    call = ToolCall("search", {"queries": [{"query": "moons of Zärk"}]})
    text = RENDERER.text(
        [
            Message(Role.SYSTEM, "S"),
            Message(Role.USER, "U"),
            Message(Role.ASSISTANT, "plan", tool_calls=(call, call)),
            Message(Role.TOOL, "one"),
            Message(Role.TOOL, "two"),
            Message(Role.USER, "Answer now."),
        ],
        prompt=True,
    )
    tagged = '<tool_call>\n{"name": "search", "arguments": {"queries": [{"query": "moons of Zärk"}]}}\n</tool_call>'
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        f"<|im_start|>assistant\nplan\n{tagged}\n{tagged}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
        "<|im_start|>user\nAnswer now.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tools_given_to_the_template_change_nothing() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "U"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
    with_tools = TOKENIZER.apply_chat_template(messages, tools=tools, tokenize=False)
    assert with_tools == TOKENIZER.apply_chat_template(messages, tokenize=False)


def test_an_observation_rendered_alone_is_the_tail_of_the_whole() -> None:
    opening = PACK.opening(AgentRole.LEAD, "Q")
    said = Message(Role.ASSISTANT, "", tool_calls=(ToolCall("create_sub_agents", {"sub_agents": [{"prompt": "p"}]}),))
    heard = PACK.reports([Report("r"), Report(error="timed out")], turn=1, limit=10)
    whole = RENDERER.text([*opening, said, heard], prompt=True)
    assert whole.endswith(RENDERER.text([heard], prompt=True))
    assert "2. failed\nTurn 1 of 10.\n</tool_response>" in whole


def test_pages_are_short() -> None:
    pages = [page for index in range(20) for page in make_world(Split.TRAIN, index).pages]
    assert max(len(RENDERER.encode(page.text)) for page in pages) <= 90
    assert max(len(RENDERER.encode(page.snippet)) for page in pages) <= 30
