"""Von Mises-Fisher distributions on the unit sphere: their normalisation, concentration and expectations.

A direction Z in R^p with mean direction mu and concentration k has the density C(k) exp(k mu.Z). With v = p/2 - 1,

    log C(k) = v log k - log I_v(k) - p/2 log(2 pi),

and E[exp(t z.Z)] = C(k) / C(|k mu + t z|) for a unit vector z. I_v is the modified Bessel function of the first kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ltr.methods.contrastive.options import ConcentrationRule

LARGEST = 1e5  # concentration, of the official code

# Debye's polynomials U_1 to U_5 in the odd or even powers of p, times the last number (DLMF 10.41.10)
_DEBYE = (
    ((3, -5), 1, 24),
    ((81, -462, 385), 2, 1152),
    ((30375, -369603, 765765, -425425), 3, 414720),
    ((4465125, -94121676, 349922430, -446185740, 185910725), 4, 39813120),
    ((1519035525, -49286948607, 284499769554, -614135872350, 566098157625, -188699385875), 5, 6688604160),
)
_SMALLEST_ORDER = 24.0  # from which five polynomials give ten digits


def log_bessel(order: float, squared: Tensor) -> Tensor:
    """Return log(I_v(x) / x^v) of x >= 0 from x^2, float64; smooth in x^2, and differentiable by autograd.

    Debye's expansion (DLMF 10.41.3) holds uniformly in x for large orders. Smaller ones follow from two larger ones by
    I_(v-1) = 2v/x I_v + I_(v+1), whose terms are positive. The absolute error is below 1e-10 for x up to 1e5.

    Args:
        order: v >= 0.
        squared: x^2, any shape.
    """
    squared = squared.double()
    steps = max(0, math.ceil(_SMALLEST_ORDER - order))
    result = _debye(order + steps, squared)
    if not steps:
        return result
    ratio = (_debye(order + steps + 1, squared) - result).exp()  # of G_(v+1) to G_v, G_v = I_v / x^v
    for higher in range(steps, 0, -1):
        factor = 2 * (order + higher) + squared * ratio  # of G_(v-1) to G_v
        result, ratio = result + factor.log(), 1 / factor
    return result


def _debye(order: float, squared: Tensor) -> Tensor:
    root = (1 + squared / order**2).sqrt()
    inverse = 1 / root
    series = torch.ones_like(root)
    for coefficients, first_power, divisor in _DEBYE:
        polynomial = torch.zeros_like(root)
        for coefficient in reversed(coefficients):
            polynomial = polynomial * inverse**2 + coefficient
        series = series + polynomial * inverse**first_power / (divisor * order**first_power)
    main = order * (root - (1 + root).log() - math.log(order))
    return main - 0.5 * math.log(2 * math.pi * order) - 0.5 * root.log() + series.log()


def concentration(mean_norms: Tensor, width: int, rule: ConcentrationRule) -> Tensor:
    """Return the approximate maximum-likelihood concentration of directions from the norm R of their mean.

    Args:
        mean_norms: R in [0, 1], any shape.
        width: p.
        rule: ``banerjee`` is R (p - R^2) / (1 - R^2) (Banerjee et al., JMLR 2005), ``official`` ProCo's code,
            p R / (1 - R^2).
    """
    norms = mean_norms.double()
    factor = width - norms**2 if rule == "banerjee" else width
    gap = 1 - norms**2
    # directions that are all equal have no finite concentration; rounding may make R larger than 1
    return torch.where(gap > 0, norms * factor / gap.clamp_min(1e-12), LARGEST).clamp(max=LARGEST)


def log_expected_exponential(cosines: Tensor, kappa: Tensor, scale: float, width: int) -> Tensor:
    """Return log E[exp(s z.Z)] for each z and each distribution, float64 [B, C].

    Args:
        cosines: z.mu of unit vectors z and the mean directions, [B, C].
        kappa: concentration of each distribution, [C].
        scale: s, the inverse of a temperature.
        width: p.
    """
    kappa = kappa.double()
    squared = kappa**2 + 2 * scale * kappa * cosines.double() + scale**2
    order = width / 2 - 1
    return log_bessel(order, squared.clamp_min(0)) - log_bessel(order, kappa**2)


def mean_length(kappa: Tensor, width: int) -> Tensor:
    """Return A_p(k) = I_(p/2)(k) / I_(p/2-1)(k), the norm of E[Z], float64."""
    squared, order = kappa.double() ** 2, width / 2 - 1
    return kappa.double() * (log_bessel(order + 1, squared) - log_bessel(order, squared)).exp()
