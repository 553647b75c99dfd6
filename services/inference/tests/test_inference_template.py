"""Append-only contexts against the template's full render."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wideseek_inference.adapters.tokenizer import HubTokenizer
from wideseek_inference.core.template import Renderer, TemplateError
from wideseek_inference.core.turns import Context, Message, RequestError, Role, ToolSpec
from wideseek_inference.testing import Tiny
from wideseek_kit.entry import StartError

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>\n", exclude_categories=["C"]), min_size=1)
TOOLS = (ToolSpec("search", "Finds pages.", {"type": "object", "properties": {"q": {"type": "string"}}}),)


def told(*roles: Role) -> st.SearchStrategy[list[Message]]:
    return st.tuples(*(st.builds(Message, st.just(role), WORDS) for role in roles)).map(list)


OPENING = told(Role.SYSTEM, Role.USER) | told(Role.USER)
LATER = told(Role.USER) | st.lists(st.builds(Message, st.just(Role.TOOL), WORDS), min_size=1, max_size=3)
TURNS = st.lists(st.tuples(WORDS, LATER), max_size=3)


class Template:
    """A tokenizer that only renders: for templates that no model has."""

    template_hash = "x"
    vocabulary_size = 0x110000

    def __init__(self, assistant: str) -> None:
        self._assistant = assistant

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        return "".join(self._assistant.format(m.content) if m.role is Role.ASSISTANT else m.content for m in messages)


@pytest.fixture(scope="module", params=[{}, {"enable_thinking": False}], ids=["plain", "template_args"])
def tokenizer(request: pytest.FixtureRequest, tiny: Tiny) -> HubTokenizer:
    return HubTokenizer(tiny.a, request.param)


@settings(deadline=None, max_examples=60)
@given(opening=OPENING, turns=TURNS, tools=st.sampled_from([(), TOOLS]))
def test_appended_contexts_equal_the_full_render(
    tokenizer: HubTokenizer, opening: list[Message], turns: list[tuple[str, list[Message]]], tools: tuple[ToolSpec, ...]
) -> None:
    renderer = Renderer(tokenizer)
    conversation = list(opening)
    context = Context(renderer.appended(Context(), opening, tools), (), tokenizer.template_hash)
    suffix = prompt_suffix(tokenizer)
    # The template drops think blocks before the last user message: there it does not allow what is compared here.
    assume(not suffix or all(later[0].role is Role.TOOL for _, later in turns))
    for said, later in turns:
        output = tokenizer.encode(said + "<|im_end|>")
        context = Context(context.token_ids + output, (), context.template_hash)
        conversation += [Message(Role.ASSISTANT, suffix + said), *later]
        context = Context(context.token_ids + renderer.appended(context, later, ()), (), context.template_hash)
    assert context.token_ids == tokenizer.encode(tokenizer.render(conversation, tools))


def prompt_suffix(tokenizer: HubTokenizer) -> str:
    """What the generation prompt opens the assistant's turn with."""
    text = tokenizer.render([Message(Role.USER, ".")], ())
    return text.rpartition("<|im_start|>assistant\n")[2]


def test_a_turn_cut_by_its_length_is_ended_by_the_template(tokenizer: HubTokenizer) -> None:
    renderer = Renderer(tokenizer)
    new = [Message(Role.USER, "go on")]
    (end,) = tokenizer.encode("<|im_end|>")
    whole = renderer.appended(Context(tokenizer.encode("an answer") + [end], (), tokenizer.template_hash), new, ())
    cut = renderer.appended(Context(tokenizer.encode("an answ"), (), tokenizer.template_hash), new, ())
    assert cut == [end, *whole]
    assert whole[0] != end


def test_several_tool_results_stand_in_one_user_turn(tokenizer: HubTokenizer) -> None:
    context = Context(tokenizer.encode("x<|im_end|>"), (), tokenizer.template_hash)
    ids = Renderer(tokenizer).appended(context, [Message(Role.TOOL, "one"), Message(Role.TOOL, "two")], ())
    responses = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    assert tokenizer.render([Message(Role.USER, ".")], ())  # the template itself works
    text = "".join(tokenizer._tokenizer.convert_ids_to_tokens(ids)).replace("Ċ", "\n")
    assert text.startswith(f"\n<|im_start|>user\n{responses}<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("context", "field", "reason"),
    [
        (Context([5, 6], (), "another"), "context.template_hash", "CONTEXT_FOREIGN"),
        (Context([5, 6]), "context.template_hash", "CONTEXT_FOREIGN"),
        (Context([], (Message(Role.USER, "x"),)), "context.messages", "CONTEXT_FOREIGN"),
    ],
)
def test_a_foreign_context_is_refused(tokenizer: HubTokenizer, context: Context, field: str, reason: str) -> None:
    with pytest.raises(RequestError) as error:
        Renderer(tokenizer).appended(context, [Message(Role.USER, "x")], ())
    assert (error.value.field, error.value.reason) == (field, reason)


def test_a_token_outside_the_vocabulary_is_refused(tokenizer: HubTokenizer) -> None:
    context = Context([5, 100_000], (), tokenizer.template_hash)
    with pytest.raises(RequestError, match="token 100000 is not in the vocabulary of") as error:
        Renderer(tokenizer).appended(context, [Message(Role.USER, "x")], ())
    assert error.value.field == "context.token_ids"


def test_messages_that_the_template_refuses_are_the_callers_fault(tokenizer: HubTokenizer) -> None:
    with pytest.raises(RequestError, match="no user message") as error:
        Renderer(tokenizer).appended(Context(), [Message(Role.TOOL, "x")], ())
    assert error.value.reason == "TEMPLATE_REFUSED"


@pytest.mark.parametrize("assistant", ["", "{0}{0}"], ids=["drops it", "repeats it"])
def test_a_template_that_rewrites_answers_is_refused_at_start(assistant: str) -> None:
    with pytest.raises(TemplateError, match="once and as it is"):
        Renderer(Template(assistant))


def test_the_hash_covers_tokenizer_template_and_variables(tiny: Tiny, tmp_path: Path) -> None:
    def variant(name: str, file: str, old: str, new: str) -> str:
        target = tmp_path / name
        target.mkdir()
        for source in tiny.a.iterdir():
            (target / source.name).write_bytes(source.read_bytes())
        text = (target / file).read_text()
        assert old in text
        (target / file).write_text(text.replace(old, new))
        return HubTokenizer(target, {}).template_hash

    hashes = {
        HubTokenizer(tiny.a, {}).template_hash,
        HubTokenizer(tiny.a, {"enable_thinking": False}).template_hash,
        variant("template", "chat_template.jinja", "Callable tools", "Tools"),
        variant("tokenizer", "tokenizer.json", '"<think>"', '"<thinks>"'),
    }
    assert len(hashes) == 4
    assert HubTokenizer(tiny.b, {}).template_hash in hashes


def test_a_model_without_tokenizer_or_template_does_not_start(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="tokenizer.json is missing"):
        HubTokenizer(tmp_path, {})
    for source in tiny.a.iterdir():
        if source.name != "chat_template.jinja":
            (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(StartError, match="has no chat template"):
        HubTokenizer(tmp_path, {})
