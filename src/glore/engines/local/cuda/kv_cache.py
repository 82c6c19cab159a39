"""Keys and values in pages, on the GPU.

Axes: L layers, P pages, H key/value heads, T tokens of a page, D head size.
"""

from __future__ import annotations

import torch

from glore.engines.local.cuda.launch import copy_pages
from glore.engines.local.prefix_tree import PAGE_SIZE

__all__ = ["CudaKVCache"]


class CudaKVCache:
    """One tensor [2L, P, H, T, D]: keys and values of all layers in turn, so that one kernel copies
    pages.

    It is allocated at the first layer's first use. Raises NotImplementedError for layers of
    different shapes.
    """

    def __init__(self, n_pages: int, n_layers: int) -> None:
        self.n_pages, self.n_layers = n_pages, n_layers
        self.data: torch.Tensor | None = None

    @property
    def bytes_per_page(self) -> int:
        """0 until the first layer was used."""
        return 0 if self.data is None else self.data.element_size() * self.data[:, 0].numel()

    def layer(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [P, H, T, D] of layer `index`, for keys like `like` [.., H, D]."""
        n_heads, size = like.shape[-2:]
        if self.data is None:
            # Zeros: hidden tokens still meet a weight of zero, and zero times an uninitialised NaN
            # is NaN.
            self.data = like.new_zeros((2 * self.n_layers, self.n_pages, n_heads, PAGE_SIZE, size))
        if self.data.shape[2::2] != (n_heads, size) or index >= self.n_layers:
            raise NotImplementedError("layers whose keys have different shapes")
        return self.data[2 * index], self.data[2 * index + 1]

    @torch.inference_mode()
    def copy(self, sources: list[int], targets: list[int]) -> None:
        """Copy the pages `sources` [n] to the pages `targets` [n] in every layer."""
        if self.data is not None and sources:
            copy_pages(
                self.data, torch.tensor([sources, targets], dtype=torch.int32).to(self.data.device)
            )
