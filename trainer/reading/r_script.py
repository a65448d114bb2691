"""The script for R that repeats the analysis of a measure from its tidy table, with lme4 and mgcv."""

from collections.abc import Sequence
from string import Template

from trainer.reading.regression import KNOT_SHARES, Kind


def r_script(kind: Kind, baseline: Sequence[str], surprisal: Sequence[str], table: str, response: str = "time") -> str:
    """Return a script that prints coefficients, standard deviations, and differences of held-out log-likelihoods.

    The table is a CSV file with the columns text, position, word, person if there are persons, fold, the response and
    the predictors, from which rows that the analysis left out are missing. The response are milliseconds, their
    logarithm, or 1 for a skipped unit.
    """
    return Template(_SCRIPT).substitute(
        table=table,
        response=response,
        baseline=_strings(baseline),
        surprisal=_strings(surprisal),
        shares=", ".join(map(str, KNOT_SHARES)),
        model=_MODELS[kind],
        classes='c(text = "character")' if kind == "means" else 'c(text = "character", person = "character")',
        groups="" if kind == "means" else ', "(1 | person)", "(1 | unit)"',
        clustered=_CLUSTERED_MEANS if kind == "means" else _CLUSTERED,
        density=_BERNOULLI if kind == "logistic" else _NORMAL,
    )


def _strings(names: Sequence[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"c({quoted})" if names else "character(0)"


_CLUSTERED_MEANS = """#   V <- clubSandwich::vcovCR(model, d$text, type = "CR3") * (g - 1) / g   # of g texts
# These hold for the persons of the table."""
_CLUSTERED = """#   x <- getME(model, "X"); r <- the residuals; V <- the covariance of residuals and random effects
#   (of glmer r / W and 1 / W in place of the residuals and their variance, with the weights W = p (1 - p))
#   vx <- solve(V, x); A <- t(vx) %*% x
# The rows i of a text move the coefficients by solve(A - t(vx[i, ]) %*% x[i, ], t(vx[i, ]) %*% u[i]), where u are r and
# the ranef of the units; those of a person likewise, with the ranef of the persons for that of the units; those of a
# cell of both by solve(A, t(vx[i, ]) %*% r[i]). The squares are summed, and those of g texts or persons times (g-1)/g.
#   V <- V(texts) + pmax(0, V(persons) - V(cells))   # with fewer than five persons V(texts) alone
# Random slopes can be added to the formula of `fit`."""
_MODELS: dict[Kind, str] = {
    "means": "lm(formula, d)",
    "mixed": 'lmer(formula, d, control = lmerControl(optimizer = "bobyqa", optCtrl = search, calc.derivs = FALSE))',
    "logistic": (
        'glmer(formula, d, family = binomial, control = glmerControl(tolPwrss = 1e-13, optimizer = "bobyqa", '
        "optCtrl = search))"
    ),
}
_NORMAL = "dnorm(new$time, expected, sqrt(variance + sigma(model)^2), log = TRUE)"
_BERNOULLI = """{
    n <- 20  # Gauss-Hermite quadrature over the effects of new units, by Golub and Welsch (1969)
    jacobi <- diag(0, n)
    jacobi[cbind(1:(n - 1), 2:n)] <- jacobi[cbind(2:n, 1:(n - 1))] <- sqrt(1:(n - 1))
    rule <- eigen(jacobi, symmetric = TRUE)
    logits <- expected + outer(sqrt(variance), rule$values)
    log(drop(plogis((2 * new$time - 1) * logits) %*% rule$vectors[1, ]^2))
  }"""
_SCRIPT = """# Reading times and surprisal: Rscript SCRIPT [TABLE]
# Needs lme4 and mgcv.
#
# The standard errors are those of the model. The intervals of the report have clustered ones, and Student's t of one
# degree less than there are clusters of the fewer kind. A text is an item where there is that column:
$clustered
suppressPackageStartupMessages({
  library(lme4)
  library(mgcv)
  library(splines)
})
given <- commandArgs(trailingOnly = TRUE)
d <- read.csv(if (length(given)) given[1] else "$table", na.strings = "", colClasses = $classes)
d$$time <- d$$$response
d$$unit <- paste(d$$text, d$$position)
baseline <- $baseline
surprisal <- $surprisal
search <- list(rhobeg = 0.02, rhoend = 1e-9, maxfun = 100000)

fit <- function(d, columns) {
  formula <- reformulate(c("1", columns$groups), "time")
  $model
}

# log densities of new rows: a known person or unit has its predicted effect, a new one the variance of its group
log_densities <- function(model, new, columns) {
  x <- cbind(1, as.matrix(new[, columns, drop = FALSE]))
  mixed <- !inherits(model, "lm")
  expected <- drop(x %*% if (mixed) fixef(model) else coef(model))
  variance <- 0 * expected
  if (mixed) for (group in names(ranef(model))) {
    effects <- ranef(model)[[group]]
    place <- match(as.character(new[[group]]), rownames(effects))
    expected <- expected + ifelse(is.na(place), 0, effects[place, 1])
    variance <- variance + ifelse(is.na(place), VarCorr(model)[[group]][1, 1], 0)
  }
  $density
}

# natural cubic splines of surprisal with knots at quantiles of the rows that the model is fitted to
splined <- function(d, knots) {
  for (name in surprisal) {
    k <- knots[[name]]
    basis <- if (length(k) > 2) ns(d[[name]], knots = k[-c(1, length(k))], Boundary.knots = range(k)) else d[[name]]
    basis <- as.matrix(basis)
    for (number in seq_len(ncol(basis))) d[[paste(name, "spline", number, sep = "_")]] <- basis[, number]
  }
  d
}
knots_of <- function(d) lapply(d[surprisal], function(column) unique(unname(quantile(column, c($shares)))))

held_out <- function(form) {
  densities <- rep(NA_real_, nrow(d))
  for (fold in unique(d$$fold)) {
    inside <- d[d$$fold != fold, ]
    outside <- d[d$$fold == fold, ]
    columns <- baseline
    if (form == "linear") columns <- c(columns, surprisal)
    if (form == "spline") {
      knots <- knots_of(inside)
      inside <- splined(inside, knots)
      outside <- splined(outside, knots)
      columns <- c(columns, grep("_spline_", names(inside), value = TRUE))
    }
    densities[d$$fold == fold] <- log_densities(fit(inside, columns), outside, columns)
  }
  densities
}

show <- function(name, numbers) cat(name, sprintf("%.10g", numbers), sep = "\\t", fill = 1000)
model <- fit(d, c(baseline, surprisal))
errors <- sqrt(diag(as.matrix(vcov(model))))
values <- if (inherits(model, "lm")) coef(model) else fixef(model)
names(values)[1] <- "intercept"
for (place in seq_along(values)) show(names(values)[place], c(values[place], errors[place]))
if (!inherits(model, "lm")) for (group in names(ranef(model))) {
  show(paste0("sd_", group), attr(VarCorr(model)[[group]], "stddev"))
}
show("sd_residual", sigma(model))
without <- held_out("none")
for (form in c("linear", "spline")) show(paste0("delta_log_likelihood_", form), mean(held_out(form) - without))

# beside it: smooth curves with as many degrees of freedom as the means of the units ask for
means <- aggregate(d[c("time", baseline, surprisal)], d["unit"], mean)
counts <- vapply(means[surprisal], function(column) length(unique(column)), 1)
curved <- ifelse(counts > 9, sprintf("s(%s)", surprisal), surprisal)
curves <- gam(reformulate(c(baseline, curved), "time"), data = means, method = "REML")
print(summary(curves)$$s.table)
"""
