"""Ray itself: imports it late, joins or starts a cluster, and sends model files through its object
store.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glore.config import HttpEngineSettings
from glore.config.plugins import is_installed
from glore.engines.http.apikey import check_key
from glore.engines.ray.worker import ModelFiles
from glore.errors import EngineError, ModelError, shown

if TYPE_CHECKING:
    from types import ModuleType

    from glore.config import RayEngineSettings

__all__ = ["check_installed", "connect", "disconnect", "import_ray", "resources", "shipped"]


def check_installed(settings: RayEngineSettings) -> None:
    """Raises EngineError where Ray is not installed, or the key of inner engines can't be sent."""
    if not is_installed("ray"):
        import_ray()
    if isinstance(settings.inner, HttpEngineSettings):
        check_key(settings.inner)


def import_ray() -> ModuleType:
    """The package, imported late. Raises EngineError with what to install."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise EngineError(
            "engine.kind=ray needs the package ray: pip install 'glore[ray]' on every machine of "
            "the cluster"
        ) from error


@dataclasses.dataclass(slots=True)
class _Connection:
    """This process's connection to a cluster, which all its pools share."""

    is_own: bool = False
    """Whether `connect` made it."""
    n_pools: int = 0


_connection = _Connection()


def connect(ray: ModuleType, settings: RayEngineSettings) -> None:
    """Join the cluster, or start one on this machine, for one more pool.

    Raises EngineError when it can't be joined or is too small for one worker.
    """
    if not ray.is_initialized():
        own = settings.address in (None, "local") and "RAY_ADDRESS" not in os.environ
        options = {"include_dashboard": False} if own else {}
        try:
            ray.init(
                address=settings.address, logging_level="ERROR", log_to_driver=False, **options
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = settings.address or os.environ.get("RAY_ADDRESS", "this machine")
            raise EngineError(
                f"no Ray cluster at {shown(where)}: {shown(' '.join(str(error).split()), 200)}; "
                "start one with ray start --head, or leave engine.address out to use this machine "
                "alone"
            ) from error
        _connection.is_own, _connection.n_pools = True, 0
    _connection.n_pools += 1
    try:
        _check_size(ray, settings)
    except EngineError:
        disconnect(ray)
        raise


def disconnect(ray: ModuleType) -> None:
    """End one pool's use of the cluster.

    After the last pool, a cluster that `connect` started is stopped, and one that it joined is
    left. What others connected to stays connected.
    """
    _connection.n_pools = max(0, _connection.n_pools - 1)
    if _connection.is_own and not _connection.n_pools:
        _connection.is_own = False
        if ray.is_initialized():
            ray.shutdown()


def _check_size(ray: ModuleType, settings: RayEngineSettings) -> None:
    there = ray.cluster_resources()
    if (
        there.get("CPU", 0) < settings.cpus_per_worker
        or there.get("GPU", 0) < settings.gpus_per_worker
    ):
        raise EngineError(
            f"a worker takes {settings.cpus_per_worker:g} CPU and {settings.gpus_per_worker:g} "
            f"GPU, and the Ray cluster has {resources(ray)} in all; change engine.cpus_per_worker "
            "and engine.gpus_per_worker, or add machines"
        )


def resources(ray: ModuleType) -> str:
    """CPUs and GPUs of the whole cluster, in words."""
    there = ray.cluster_resources()
    return f"{there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"


def shipped(ray: ModuleType, folder: Path) -> ModelFiles:
    """Put the files of a model folder into the object store. Raises ModelError for no folder."""
    if not folder.is_dir():
        raise ModelError(
            f"engine.ship_models sends a folder, and {shown(str(folder))} is none; use "
            "ship_models=false for models of the Hub"
        )
    names = tuple(str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file())
    return ModelFiles(names, _Fetch([ray.put((folder / name).read_bytes()) for name in names]))


class _Fetch:
    """Gets bytes out of the object store, on any machine."""

    def __init__(self, references: Sequence[object]) -> None:
        self._references = references

    def __call__(self, index: int) -> bytes:
        data = import_ray().get(self._references[index])
        assert isinstance(data, bytes)
        return data
