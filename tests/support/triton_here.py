"""Whether Triton's interpreter runs here: imported before anything that imports the kernels."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # conftest.py does the same, for the whole suite
triton = pytest.importorskip("triton", reason="Triton is not installed; its wheels are for Linux")

if (
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    and np.lib.NumpyVersion(np.__version__) >= "2.4.0"
):
    pytest.skip(
        "Triton before 3.7 can't interpret loops beside numpy 2.4 or newer", allow_module_level=True
    )
