"""Seeds: every random choice depends on the run's seed and on names, never on an order."""

from __future__ import annotations

import hashlib

__all__ = ["stable_seed"]


def stable_seed(*parts: object) -> int:
    """The run's seed and names → a 63-bit seed, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(str(p) for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
