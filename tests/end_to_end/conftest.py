"""One finished run for all tests of this folder."""

from __future__ import annotations

import pytest

from glore import load_config, run
from glore.config import RunConfig
from support.tiny_recipe import tiny_recipe


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of the tiny recipe under the name of the quickstart. Tests work on copies of it."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "quickstart.yaml").write_text(tiny_recipe("quickstart"))
    overrides = [f"runs_dir={folder / 'runs'}", "track=tensorboard"]
    config = load_config(folder / "quickstart.yaml", overrides)
    assert run(config) == config.run_dir
    return config
