"""torch.compile for a training: each kind of block is compiled once, for all layers.

Compiling a whole model of 30 layers takes minutes, a block seconds (PyTorch's "regional
compilation"). Blocks are compiled in place: names of weights, checkpoints and the saved model stay
as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from accelerate.utils.other import is_repeated_blocks

__all__ = ["BACKEND", "compiled_blocks"]

BACKEND = "inductor"


@contextlib.contextmanager
def compiled_blocks(model: torch.nn.Module) -> Iterator[int]:
    """Compile the blocks of `model` inside the context. Yields their number."""
    blocks = [
        block
        for module in model.modules()
        if is_repeated_blocks(module)
        for block in module.children()
    ]
    for block in blocks:
        block.compile(backend=BACKEND)
    try:
        yield len(blocks)
    finally:
        for block in blocks:
            block._compiled_call_impl = None  # what Module.compile set
