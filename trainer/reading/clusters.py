"""Standard errors of coefficients that are clustered by texts and by persons.

The standard errors of a model hold if it is right: no text is slow as a whole, and surprisal slows all persons equally
much. Clustered ones need neither. The coefficients are b = A⁻¹ X'V⁻¹y with A = X'V⁻¹X. A cluster g of rows has the
score s = (V⁻¹X)'r of its residuals r, and moves the coefficients by about (A - M)⁻¹ s, where M = (V⁻¹X)'X of its rows:
the jackknife that leaves out one cluster after the other (CR3; Bell and McCaffrey 2002). For least squares this is
exact. The squares of these moves, times (G - 1) / G for G clusters, are a covariance. Those of two ways to cluster are
added, and that of the cells of both is subtracted (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136):

    texts + persons - cells of texts and persons

where the sum is never below that of texts. The residuals of texts have no effects of persons in them, and those of
persons none of units, so that these do not count twice.
"""

from typing import NamedTuple

import numpy as np

from trainer.contracts.intervals import t_quantile
from trainer.contracts.readings import MIN_PERSONS
from trainer.reading.mixed import Crossing, Design, Elimination, Floats, Groups, Levels, MixedFit, inverted

_LEAST = 1e-13


class Clusters(NamedTuple):
    """The clusters of n observations."""

    texts: Levels
    persons: "Levels | None"
    """None for means over persons."""

    @property
    def has_persons(self) -> bool:
        """True if there are enough persons to tell how much their effects differ."""
        return self.persons is not None and len(np.unique(self.persons)) >= MIN_PERSONS


class Working(NamedTuple):
    """A fitted model as least squares with weights, which a logistic one is at the modes of its effects."""

    weights: Floats
    """Inverse variances of the residuals (n,)."""
    errors: Floats
    """Residuals beside the predicted effects of persons and units, times the weights (n,)."""


class Clustered(NamedTuple):
    """Clustered covariances of p coefficients."""

    by_texts: Floats
    """(p, p)."""
    beside: Floats
    """That of persons minus that of cells (p, p), which may be below 0; zeros without persons."""
    quantile: float
    """That of 95 % intervals: Student's t with one degree less than the fewer clusters are."""
    has_persons: bool

    def errors(self, contrasts: Floats) -> Floats:
        """Return the standard errors of sums of coefficients (m,), given their factors (m, p)."""
        by_texts: Floats = np.sum(contrasts @ self.by_texts * contrasts, axis=1)
        beside: Floats = np.sum(contrasts @ self.beside * contrasts, axis=1)
        errors: Floats = np.sqrt(by_texts + np.maximum(beside, 0.0))
        return errors


def clustered(design: Design, groups: Groups, fit: MixedFit, working: Working, clusters: Clusters) -> Clustered:
    """Return the clustered covariances of the coefficients of a fit."""
    basis, triangle = design.orthonormal()
    x = basis[design.rows]
    rest = _without_effects(x, groups, fit, working.weights)
    of_persons, of_units = (
        np.zeros(len(x)) if levels is None else effects[levels]
        for levels, effects in zip(groups, fit.effects, strict=True)
    )
    weighted: Floats = rest * working.weights[:, np.newaxis]
    information: Floats = weighted.T @ x

    def covariance(levels: Levels, residuals: Floats, *, is_jackknife: bool = True) -> Floats:
        known, places = np.unique(levels, return_inverse=True)
        scores = _sums(rest * residuals[:, np.newaxis], places)
        if is_jackknife:
            own: Floats = np.stack([_sums(weighted * column[:, np.newaxis], places) for column in _columns(x)], axis=2)
            least = _LEAST * float(np.sum(np.diag(information)))  # where a cluster alone has what a predictor tells
            inverses = inverted(information - own + least * np.eye(len(information)))
            moves: Floats = np.sum(inverses * scores[:, np.newaxis], axis=2)
            share = (len(known) - 1) / len(known)
        else:
            moves, share = scores @ inverted(information).T, 1.0
        in_basis: Floats = share * moves.T @ moves
        to_given = inverted(triangle)
        found: Floats = to_given @ in_basis @ to_given.T
        return found

    by_texts = covariance(clusters.texts, working.errors + working.weights * of_units)
    n_clusters, beside = len(np.unique(clusters.texts)), np.zeros_like(by_texts)
    if clusters.persons is not None and clusters.has_persons:
        cells: Levels = clusters.persons * (1 + int(np.max(clusters.texts))) + clusters.texts
        of_persons_alone = covariance(clusters.persons, working.errors + working.weights * of_persons)
        beside = of_persons_alone - covariance(cells, working.errors, is_jackknife=False)
        n_clusters = min(n_clusters, len(np.unique(clusters.persons)))
    return Clustered(by_texts, beside, t_quantile(n_clusters - 1), clusters.has_persons)


def _without_effects(x: Floats, groups: Groups, fit: MixedFit, weights: Floats) -> Floats:
    """Return W⁻¹V⁻¹X (n, p) of columns (n, p): what is left of them beside the effects of persons and units."""
    if all(levels is None for levels in groups):
        return x
    crossing = Crossing.of(groups, len(x))
    sds: tuple[float, float] = crossing.as_given(*fit.group_sds)
    large_sd, small_sd = sds
    of_large, of_small = crossing.sums(weights)
    factor = Elimination.of(
        large_sd**2 * of_large + 1, large_sd * small_sd * crossing.table(weights), np.diag(small_sd**2 * of_small + 1)
    )
    inverse, rest = inverted(factor.schur), np.empty_like(x)
    for place, column in enumerate(_columns(x)):
        large, small = crossing.sums(weights * column)
        found: Floats = inverse @ (small_sd * small - factor.cross.T @ (large_sd * large / factor.diagonal))
        beside: Floats = (large_sd * large - factor.cross @ found) / factor.diagonal
        rest[:, place] = column - crossing.of_observations(large_sd * beside, small_sd * found)
    return rest


def _columns(rows: Floats) -> list[Floats]:
    columns: list[Floats] = list(rows.T)
    return columns


def _sums(rows: Floats, places: Levels) -> Floats:
    """Return the sums of rows (n, p) over the clusters (G, p)."""
    columns: list[Floats] = [np.bincount(places, column).astype(np.float64) for column in _columns(rows)]
    return np.stack(columns, axis=1)
