"""Intervals for shares and paired differences (method 6: every accuracy has a 95 % interval and n).

- `wilson`: a share of independent yes/no outcomes (one draft per question).
- `Resampler`: units that are not independent. The bootstrap draws whole *clusters* with
  replacement: the steps of one solution, the samples of one question, and the same question under
  several seeds are one cluster. So thousands of correlated steps don't count as thousands of
  observations. All estimates of one `Resampler` share the same draws.
- `mcnemar_p`: the exact two-sided test of two yes/no outcomes on the same questions.

Axes: B bootstrap draws, C clusters, U units (rows given), M columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "Difference",
    "Estimate",
    "FloatArray",
    "Kept",
    "KeptDifference",
    "Resampler",
    "Statistic",
    "difference_of",
    "mcnemar_p",
    "mean",
    "never_certain",
    "ratio",
    "wilson",
]

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""Column sums [..., M] → value [...]."""

Z_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval. All three are none if nothing could be measured."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Number of observations: questions, drafts or steps, as the table says."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Kept(Estimate):
    """An estimate with the observations it was computed from, so that runs can be compared."""

    units: Sequence[str]
    """The cluster of each row."""
    columns: FloatArray
    """[U, M]"""
    statistic: Statistic
    clusters: Sequence[str] = ()
    """All that the bootstrap draws from; those without a row, too."""
    by_wilson: bool = False
    """Whether the interval is Wilson's, of one yes or no for each unit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """First minus second on the same units, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    gained: int
    """Units that only the first gets right; 0 for measures that are not yes/no."""
    lost: int
    """Units that only the second gets right."""
    p: float | None
    """Exact two-sided McNemar p over gained and lost. None for measures that are not yes/no and for
    units that are not independent.
    """

    @property
    def excludes_zero(self) -> bool:
        """True if the whole interval is on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeptDifference(Difference):
    """A difference with the observations it was computed from."""

    kept: Kept
    """The difference as a statistic of its observations."""


def difference_of(
    found: Estimate, gained: int = 0, lost: int = 0, p: float | None = None
) -> Difference:
    """A difference that was estimated as one number, such as that of two class-balanced shares;
    with its observations if the estimate has them.
    """
    numbers = (found.value, found.low, found.high, found.n, gained, lost, p)
    return KeptDifference(*numbers, found) if isinstance(found, Kept) else Difference(*numbers)


def mean(values: Sequence[float], otherwise: float = 0.0) -> float:
    """The mean of the values; `otherwise` where there are none."""
    return float(np.mean(values)) if values else otherwise


def wilson(successes: int, n: int) -> Estimate:
    """The share `successes` of `n` with Wilson's score interval."""
    assert 0 <= successes <= n
    if n == 0:
        return Estimate(None, None, None, 0)
    share = successes / n
    denominator = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / denominator
    # At 0 and n, rounding may put the bound slightly inside the share.
    return Estimate(
        share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n
    )


def never_certain(found: Estimate) -> Estimate:
    """A share of 0 or 1 whose interval has no width → the same with Wilson's interval, which takes
    each cluster as one observation; any other estimate as it is.

    Where all observations agree, so do all draws of a bootstrap, however few there are.
    """
    if not isinstance(found, Kept) or found.value not in (0.0, 1.0) or found.low != found.high:
        return found
    rows = {cluster: i for i, cluster in enumerate(dict.fromkeys(found.units))}
    sums_CM = np.zeros((len(rows), found.columns.shape[1]))
    np.add.at(sums_CM, [rows[u] for u in found.units], found.columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        # A share of bad steps, say, is measured in clusters that have one.
        n = int(np.isfinite(found.statistic(sums_CM)).sum())
    if n == 0:
        return found
    by_cluster = wilson(round(found.value * n), n)
    return dataclasses.replace(found, low=by_cluster.low, high=by_cluster.high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Gains and losses → p of the exact two-sided binomial test that both are equally likely."""
    n, smaller = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(smaller + 1))
    return min(1.0, 2 * tail / 2**n) if n < 1000 else min(1.0, _log_tail_p(n, smaller))


def _log_tail_p(n: int, smaller: int) -> float:
    """2 · P(X ≤ smaller) for X ~ Binomial(n, 1/2), in logarithms: the integers would have thousands
    of digits.
    """
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(smaller + 1)
    ]
    top = max(logs)
    return 2 * math.exp(top) * sum(math.exp(x - top) for x in logs)


MAX_KEPT_WEIGHTS = 20_000_000
"""Draws × clusters whose weights are kept for the next estimate; of more they are drawn again."""


class Resampler:
    """A bootstrap over clusters, deterministic in (clusters, n_draws, seed). `keeps`: estimates are
    `Kept`.
    """

    def __init__(
        self, clusters: Iterable[str], *, n_draws: int = 2000, seed: int = 0, keeps: bool = False
    ) -> None:
        self._keeps = keeps
        self._clusters = tuple(dict.fromkeys(clusters))
        self._row = {key: i for i, key in enumerate(self._clusters)}
        self._n_draws = n_draws
        self._seed = seed
        self._weights_BC: FloatArray | None = None

    def estimate(
        self, units: Sequence[str], columns_UM: FloatArray, statistic: Statistic
    ) -> Estimate:
        """Value and percentile interval of `statistic` of the column sums. `units`: the cluster of
        each row.

        Draws in which the statistic is undefined (for example, without any bad step) are left out.
        """
        if len(units) == 0:
            return Estimate(None, None, None, 0)
        value, draws_B = self.draws(units, columns_UM, statistic)
        draws_B = draws_B[np.isfinite(draws_B)]
        if not math.isfinite(value) or draws_B.size == 0:
            return self.kept(Estimate(None, None, None, len(units)), units, columns_UM, statistic)
        low, high = np.quantile(draws_B, [0.025, 0.975])
        found = Estimate(value, float(low), float(high), len(units))
        return self.kept(found, units, columns_UM, statistic)

    def draws(
        self, units: Sequence[str], columns_UM: FloatArray, statistic: Statistic
    ) -> tuple[float, FloatArray]:
        """The value of `statistic`, and its values in all draws; not finite where undefined."""
        sums_CM = self._cluster_sums(units, columns_UM)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(statistic(sums_CM.sum(axis=0, keepdims=True))[0])
            return value, statistic(self._resampled(sums_CM))

    def kept(
        self,
        found: Estimate,
        units: Sequence[str],
        columns_UM: FloatArray,
        statistic: Statistic,
        by_wilson: bool = False,
    ) -> Estimate:
        """The estimate, with its observations if this resampler keeps them."""
        if not self._keeps:
            return found
        numbers = (found.value, found.low, found.high, found.n)
        return Kept(*numbers, units, columns_UM, statistic, self._clusters, by_wilson)

    def share(self, units: Sequence[str], flags: Sequence[float]) -> Estimate:
        """The share of ones among yes and no (1 and 0), with Wilson's interval, which takes them as
        independent. `units`: the cluster of each.
        """
        found = wilson(round(sum(flags)), len(flags))
        columns_UM = np.stack([np.asarray(flags, dtype=np.float64), np.ones(len(flags))], axis=1)
        return self.kept(found, units, columns_UM, ratio, by_wilson=True)

    def mean(self, units: Sequence[str], values: Sequence[float]) -> Estimate:
        """Mean of `values` over units. `units`: the cluster of each value."""
        values_U = np.asarray(values, dtype=np.float64)
        return self.estimate(units, np.stack([values_U, np.ones_like(values_U)], axis=1), ratio)

    def paired(
        self, units: Sequence[str], first: Sequence[float], second: Sequence[float]
    ) -> Difference:
        """Mean of `first` − mean of `second` on the same units. With McNemar's p if both are yes/no
        and every unit is a cluster of its own.
        """
        first_U, second_U = (
            np.asarray(first, dtype=np.float64),
            np.asarray(second, dtype=np.float64),
        )
        assert first_U.shape == second_U.shape == (len(units),)
        found = self.mean(units, list(first_U - second_U))
        binary = (
            bool(np.isin(first_U, (0, 1)).all() and np.isin(second_U, (0, 1)).all())
            and len(units) > 0
        )
        gained, lost = (
            (int((first_U > second_U).sum()), int((first_U < second_U).sum())) if binary else (0, 0)
        )
        p = mcnemar_p(gained, lost) if binary and len(set(units)) == len(units) else None
        return difference_of(found, gained, lost, p)

    def _cluster_sums(self, units: Sequence[str], columns_UM: FloatArray) -> FloatArray:
        sums_CM = np.zeros((len(self._row), columns_UM.shape[1]))
        np.add.at(sums_CM, [self._row[u] for u in units], columns_UM)
        return sums_CM

    def _resampled(self, sums_CM: FloatArray) -> FloatArray:
        """Column sums of each draw, [B, M]."""
        if self._n_draws * len(self._row) > MAX_KEPT_WEIGHTS:
            return np.stack([weights_C @ sums_CM for weights_C in self._drawn()])
        if self._weights_BC is None:
            self._weights_BC = np.stack(list(self._drawn()))
        return self._weights_BC @ sums_CM

    def _drawn(self) -> Iterator[FloatArray]:
        """How often each draw has each cluster, [C], draw by draw."""
        rng = np.random.default_rng(self._seed)
        n = len(self._row)
        for _ in range(self._n_draws):
            yield np.bincount(rng.integers(0, n, size=n), minlength=n).astype(np.float64)


def ratio(sums: FloatArray) -> FloatArray:
    """Column sums [..., 2] → the first over the second: a mean, if the second column is ones."""
    quotient: FloatArray = sums[..., 0] / sums[..., 1]
    return quotient
