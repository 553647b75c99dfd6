"""Text made ready for a word index: Chinese, Japanese and Korean have no spaces, so their runs are cut into pairs.

Invariant: a run of the query is found in every text that contains it, because a text's run gives all single
characters and all neighbouring pairs, and a query's run gives its pairs (or its only character).
"""

import re

_RUN = re.compile(
    r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


def for_index(text: str) -> str:
    """The words of a text to be indexed, separated by spaces where the script has none."""
    if text.isascii():
        return text
    return _RUN.sub(lambda run: f" {' '.join([*run[0], *_pairs(run[0])])} ", text)


def for_query(text: str) -> str:
    """The words of a query, separated like those of `for_index`."""
    if text.isascii():
        return text
    return _RUN.sub(lambda run: f" {' '.join(_pairs(run[0]) or run[0])} ", text)
