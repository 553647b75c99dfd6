"""The window of a text that shows best why it matched."""

import re
from collections.abc import Sequence

_LOOKED_AT = 100_000  # characters; a match far down a huge page is not worth the time
_MATCHES = 2_000


def window(text: str, words: Sequence[str], width: int = 300) -> str:
    """At most `width` characters of `text` around the most different `words`, cut at white space where there is some.

    An ellipsis marks a cut, on top of the width. Words are matched without regard to case; without any match the
    text's beginning is shown.
    """
    if len(text) <= width:
        return text
    start = _best_start(text[:_LOOKED_AT], words, width)
    end = min(len(text), start + width)
    if start > 0:
        space = re.search(r"\s", text[start : start + width // 4])
        start += space.end() if space else 0
    if end < len(text):
        tail = text[end - width // 4 : end]
        space_at = max(tail.rfind(" "), tail.rfind("\n"))
        end -= len(tail) - space_at if space_at >= 0 else 0
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _best_start(text: str, words: Sequence[str], width: int) -> int:
    wanted = "|".join(re.escape(word) for word in sorted(set(words), key=len, reverse=True) if word)
    if not wanted:
        return 0
    matches: list[tuple[int, str]] = []
    for match in re.finditer(wanted, text, re.IGNORECASE):
        matches.append((match.start(), match[0].casefold()))
        if len(matches) == _MATCHES:
            break
    best, best_score, first = 0, 0, 0
    inside: dict[str, int] = {}
    for last, (position, word) in enumerate(matches):
        inside[word] = inside.get(word, 0) + 1
        while position + len(word) - matches[first][0] > width * 3 // 4 and first < last:
            gone = matches[first][1]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        if len(inside) > best_score:
            best, best_score = matches[first][0], len(inside)
    return max(0, best - width // 8)
