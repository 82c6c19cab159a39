"""The trackers of a training, and the check before it that their packages are installed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from glore.errors import ConfigError

__all__ = ["both", "check_trackers"]


def both(own: Sequence[str], of_run: Sequence[str]) -> list[str]:
    """The trackers of a training: its own and those of the run, each once. `all` has them all;
    `none` alone means none.
    """
    if tuple(own) == ("all",) or not of_run:
        return list(own) or ["none"]
    return [*of_run, *(name for name in own if name not in (*of_run, "none"))]


def check_trackers(names: Collection[str], section: str) -> None:
    """Raise ConfigError for a tracker named in `SECTION.report_to` that is not installed."""
    if not set(names) - {"all", "none"}:
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    available = get_available_reporting_integrations()
    for name in names:
        # transformers itself checks, at the start of the training, those that are in neither list.
        if (
            name not in available
            and name in INTEGRATION_TO_CALLBACK
            and name not in ("flyte", "kubeflow")
        ):
            raise ConfigError(
                f"{section}.report_to: {name} is not installed here (installed: "
                f"{', '.join(available) or 'none'}); install it, or leave it out"
            )
