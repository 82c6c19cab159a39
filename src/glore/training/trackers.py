"""Checks before a training that the packages of the trackers it reports to are installed."""

from __future__ import annotations

from collections.abc import Collection

from glore.errors import ConfigError

__all__ = ["check_trackers"]


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
