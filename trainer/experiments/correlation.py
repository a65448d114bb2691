"""Correlation of excess cross-entropy with human ratings of how well people understand a language."""

from collections.abc import Mapping, Sequence

from trainer.contracts.experiments import Correlation, Rating, ScoringMode, TextKind

_MIN_PAIRS = 3


def correlation(
    model: str,
    kind: TextKind,
    mode: ScoringMode,
    excess: Mapping[tuple[str, str], float],
    ratings: Sequence[Rating],
) -> Correlation:
    """Correlate over the rated pairs of different languages that have an excess.

    Fewer than three pairs, or the same number for all pairs, have no correlation.
    """
    rated = {(rating.listener, rating.language): rating.mean_rating for rating in ratings}
    pairs = [pair for pair in excess if pair in rated and pair[0] != pair[1]]
    x, y = [excess[pair] for pair in pairs], [rated[pair] for pair in pairs]
    if len(pairs) < _MIN_PAIRS or len(set(x)) == 1 or len(set(y)) == 1:
        return Correlation(
            model=model,
            kind=kind,
            mode=mode,
            n=len(pairs),
            pearson_r=None,
            pearson_p=None,
            spearman_rho=None,
            spearman_p=None,
        )
    from scipy.stats import pearsonr, spearmanr  # takes a second to import

    pearson, spearman = pearsonr(x, y), spearmanr(x, y)
    return Correlation(
        model=model,
        kind=kind,
        mode=mode,
        n=len(pairs),
        pearson_r=float(pearson.statistic),
        pearson_p=float(pearson.pvalue),
        spearman_rho=float(spearman.statistic),
        spearman_p=float(spearman.pvalue),
    )
