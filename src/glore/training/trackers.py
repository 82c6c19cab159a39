"""Trackers that a training reports to: whether their packages are there, before anything is
trained.
"""

from __future__ import annotations

from collections.abc import Collection

from glore.errors import ConfigError

__all__ = ["check_trackers"]


def check_trackers(names: Collection[str], section: str) -> None:
    """Raise ConfigError where a tracker named in `SECTION.report_to` is not installed."""
    if not set(names) - {"all", "none"}:
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    available = get_available_reporting_integrations()
    for name in names:
        # What its list of available ones never names, transformers judges when the training opens.
        if (
            name not in available
            and name in INTEGRATION_TO_CALLBACK
            and name not in ("flyte", "kubeflow")
        ):
            raise ConfigError(
                f"{section}.report_to: {name} is not installed here (installed: "
                f"{', '.join(available) or 'none'}); install it, or leave it out"
            )
