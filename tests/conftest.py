"""Fixtures shared by all tests. Helper modules beside this file (`fakes`) can be imported from
every test folder.
"""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault(
    "TRITON_INTERPRET", "1"
)  # the kernels' tests run on a CPU; Triton reads it when it is imported first
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")  # a busy machine is slow, not wrong
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background without Ctrl-C, and the processes of the tests
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave the libraries, imported by now, out of the searches for garbage. Every engine that is
    closed and every training that ends searches; a million objects take a fifth of a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets: $GLORE_DATA, or shared/data beside the checkout. Skips
    where there is none.
    """
    folder = Path(os.environ.get("GLORE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"no data at {folder}; set GLORE_DATA to the folder that holds gsm8k/ and svamp/"
        )
    return folder
