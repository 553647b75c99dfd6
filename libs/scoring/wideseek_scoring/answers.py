r"""Short answers: the text in `\boxed{}`, exact match and token F1 as SQuAD scores them (Rajpurkar et al., 2016).

Invariant: nothing raises on any text.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_BOXED = "\\boxed{"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。、；：？！“”‘’（）《》【】")
# Languages without spaces have a token a character.
_TOKEN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff]+")


def extract_boxed(text: str) -> str | None:
    r"""The contents of the last closed `\boxed{...}`, nested braces included; None when there is none."""
    start = text.rfind(_BOXED)
    while start >= 0:
        body = start + len(_BOXED)
        depth = 1
        for end in range(body, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[body:end].strip()
        start = text.rfind(_BOXED, 0, start)
    return None


def normalise_answer(text: str) -> str:
    """Lower-case, without punctuation, English articles and repeated white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer equals an accepted one after normalisation."""
    return normalise_answer(answer) in {normalise_answer(gold) for gold in accepted}


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 over tokens against any accepted answer, in [0, 1]."""
    return max((_f1(_tokens(answer), _tokens(gold)) for gold in accepted), default=0.0)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(normalise_answer(text))


def _f1(given: Sequence[str], gold: Sequence[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    common = sum((Counter(given) & Counter(gold)).values())
    return 2 * common / (len(given) + len(gold))
