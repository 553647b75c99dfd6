"""Episode ids.

Invariant: ids sort by the time of their making, to the millisecond, and two made in one are different.
"""

import secrets
from datetime import datetime

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u: read aloud without mistakes
_TIME, _RANDOM = 10, 12


def new_episode_id(now: datetime) -> str:
    """22 characters: 10 of milliseconds since 1970, 12 of chance (60 bits)."""
    return _encode(int(now.timestamp() * 1000), _TIME) + _encode(secrets.randbits(5 * _RANDOM), _RANDOM)


def _encode(value: int, length: int) -> str:
    return "".join(_DIGITS[(value >> (5 * place)) & 31] for place in reversed(range(length)))
