"""Style sheets and scripts of pages, and the security policy that allows no others."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

__all__ = ["asset", "policy"]


def asset(package: str, *names: str) -> str:
    """The text of files of a package, one after the other."""
    folder = files(package)
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def policy(style: str, script: str, *more: str) -> str:
    """A content security policy that allows this style sheet and this script, by their hashes, and
    nothing else. `more`: directives to add.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            *more,
        )
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
