# SPDX-License-Identifier: Apache-2.0
"""Local linear regressions over patches, LNCC and LC2 in one form: the slow reference of the compiled registration.

On a patch p the fixed values u are explained by the moving channels, A = [m, 1] (LNCC) or [m, |grad m|, 1] (LC2):
SSR_p = min over theta of |u - A theta|^2 + n ridge theta^2 (the constant is not held back). Score = 1 - sum w_p SSR_p /
sum w_p SST_p. The least-squares form is variable projection (Golub & Pereyra 1973, in Kaufman's form).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import ShapeError
from .agreement import Linearised
from .checked import centred, checked, mean


@dataclass(frozen=True)
class PatchRule:
    """How patches are regressed and weighed.

    Args:
        ridge: per moving channel and pixel, in squared values of that channel; one number serves all channels.
        relative: the ridge counts in variances of the channel over the mask instead.
        signed: the first coefficient must be positive (one modality), else the patch explains nothing.
        power, floor: a patch weighs (SST / n + floor)^-power times its sums: power 0 weighs by variance and count.
        least, least_share: pixels that a patch must know, and their share of those where the fixed image is finite.
    """

    ridge: tuple[float, ...] = (0.0,)
    relative: bool = False
    signed: bool = False
    power: float = 0.0
    floor: float = 0.0
    least: int = 8
    least_share: float = 0.0

    def __post_init__(self) -> None:
        for value in self.ridge:
            check_range("ridge", value, 0.0, 1e12)
        check_range("power", self.power, 0.0, 4.0)
        check_range("floor", self.floor, 0.0, 1e12)
        check_range("least", self.least, 1, 1e9)
        check_range("least_share", self.least_share, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Fit:
    """One patch of one image: its pixels (n,) in the flat image, centred u (n,) and A (n, C), and what was fitted."""

    rows: Tensor
    u: Tensor
    a: Tensor
    ridge: Tensor
    inverse: Tensor
    theta: Tensor
    weight: float

    @property
    def sst(self) -> Tensor:
        return self.weight * self.u @ self.u

    @property
    def ssr(self) -> Tensor:
        """What remains, with the ridge: u'u - c'(A'A + ridge)^-1 c."""
        r = self.u - self.a @ self.theta
        return self.weight * (r @ r + (self.ridge * self.theta) @ self.theta)


def local_regression(
    fixed: Tensor, moving: Tensor, mask: Tensor, patches: Tensor, rule: PatchRule | float = 0.0
) -> Tensor:
    """Share of the fixed image's local variance that the moving channels explain.

    Args:
        fixed: (B, 1, h, w); moving: (B, C, h, w), C = 1 (LNCC) or more (LC2: intensity, gradient magnitude).
        mask: (B, 1, h, w); a pixel counts where it is above 0 and both images are finite.
        patches: (K, 4) row0, row1, col0, col1, ends excluded; they may overlap.
        rule: or only the ridge.

    Returns:
        (B,) in [0, 1], float64; 0 where no patch has enough pixels or the fixed image has no contrast. Differentiable
        in both images (the ridge and the weights of patches held).

    Raises:
        ShapeError, NoOverlapError: as every similarity, and patches outside the image.
    """
    rule = rule if isinstance(rule, PatchRule) else PatchRule((float(rule),))
    images = _fits(fixed, moving, mask, patches, rule)
    none = torch.where(torch.isfinite(moving), 0.0 * moving.double(), 0.0).flatten(1).sum(1)  # 0, with a gradient
    return none + torch.stack([_score(fits, fixed) for fits in images])


class LocalResidual:
    """The `LeastSquares` form of `local_regression`: 2 (1 - score) = sum of squared residuals.

    The residual lists, patch by patch, u - A theta at each of its pixels and the ridge's -sqrt(n ridge) theta; what
    moves is theta_k d m_k less its regression on A (with the ridge), so that local gain and offset are not seen.
    """

    def __init__(self, patches: Tensor, rule: PatchRule | None = None) -> None:
        self.patches, self.rule = patches, rule or PatchRule()

    def __call__(self, fixed: Tensor, moving: Tensor, mask: Tensor) -> Linearised:
        """Linearise at fixed (B, 1, h, w), moving (B, C, h, w): residual (B, R), zero-padded to one length."""
        with torch.no_grad():
            images = _fits(fixed, moving, mask, self.patches, self.rule)
        pixels = fixed[0].numel()
        residuals = [_residual(fits) for fits in images]
        length = max([len(r) for r in residuals] + [1])

        def padded(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])

        def push(d_moving: Tensor) -> Tensor:
            return torch.stack(
                [padded(_push(f, d.double().unflatten(0, (-1, pixels)))) for f, d in zip(images, d_moving, strict=True)]
            )

        weights = [torch.full_like(r, 2.0) / _whole(fits) for r, fits in zip(residuals, images, strict=True)]
        stacked = torch.stack([padded(r) for r in residuals])
        return Linearised(stacked, push, torch.stack([padded(w) for w in weights]))


def _fits(fixed: Tensor, moving: Tensor, mask: Tensor, patches: Tensor, rule: PatchRule) -> list[list[_Fit]]:
    channels = moving.shape[1] if moving.dim() == 4 else 1
    if len(rule.ridge) not in (1, channels):
        raise ShapeError(f"a ridge of {len(rule.ridge)} numbers for {channels} moving channels: give one, or one each")
    seen = torch.isfinite(fixed)
    f, m, weight = checked(fixed, moving, mask, (1, channels))
    if f.dim() != 4 or patches.dim() != 2 or patches.shape[1] != 4 or not _inside(patches, f.shape[2], f.shape[3]):
        raise ShapeError(f"patches must be (K, 4) row0, row1, col0, col1 inside an image {tuple(f.shape)}")
    boxes, images = [tuple(map(int, patch)) for patch in patches], []
    ridges = _ridges(m, weight > 0, rule)
    for b in range(len(f)):
        fits = (_fit(f[b, 0], m[b], weight[b, 0] > 0, seen[b, 0], box, (ridges[b], rule)) for box in boxes)
        images.append([fit for fit in fits if fit is not None])
    return images


def _ridges(m: Tensor, known: Tensor, rule: PatchRule) -> Tensor:
    """(B, C) float64, per pixel; not a part of the graph."""
    w, values = known.double(), m.detach().double()
    ridge = torch.tensor(rule.ridge, dtype=torch.float64, device=m.device).expand(m.shape[:2])
    return ridge * mean(centred(values, w) ** 2, w) if rule.relative else ridge


def _inside(patches: Tensor, rows: int, columns: int) -> bool:
    low, high = patches[:, [0, 2]], patches[:, [1, 3]]
    return bool((low >= 0).all() and (high > low).all() and (high <= torch.tensor([rows, columns])).all())


def _fit(
    f: Tensor, m: Tensor, known: Tensor, seen: Tensor, box: tuple[int, ...], how: tuple[Tensor, PatchRule]
) -> _Fit | None:
    """Regress one patch; None where it knows too little. All in float64, centred first."""
    ridges, rule = how
    rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
    block = (rows, columns)
    inside = known[block].flatten()
    n = int(inside.sum())
    if n < rule.least or n < rule.least_share * int(seen[block].sum()):
        return None
    index = torch.arange(f.numel(), device=f.device).reshape(f.shape)[block].flatten()[inside]
    u = f[block].flatten()[inside].double()
    a = m[:, rows, columns].flatten(1)[:, inside].double().T
    u, a = u - u.mean(), a - a.mean(0)
    ridge = n * ridges
    with torch.no_grad():  # where SSR is least its derivative by theta is zero: held, the gradient is exact
        inverse = torch.linalg.pinv(a.T @ a + torch.diag(ridge), hermitian=True)
        theta = inverse @ (a.T @ u)
        if rule.signed and float(theta[0]) <= 0.0:
            theta = torch.zeros_like(theta)
        weight = (float(u @ u) / n + rule.floor) ** -rule.power if rule.power else 1.0
    return _Fit(index, u, a, ridge, inverse, theta, weight)


def _whole(fits: list[_Fit]) -> float:
    """Total weighted variance of the fixed image over its patches, 1 where there is none to divide by."""
    whole = sum(float(fit.sst.detach()) for fit in fits)
    return whole if whole > 1e-9 else 1.0


def _score(fits: list[_Fit], like: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=like.device)
    if not fits or sum(float(fit.sst.detach()) for fit in fits) <= 1e-9:
        return zero
    return 1.0 - torch.stack([fit.ssr for fit in fits]).sum() / torch.stack([fit.sst for fit in fits]).sum()


def _residual(fits: list[_Fit]) -> Tensor:
    parts = [torch.zeros(0, dtype=torch.float64)]
    for fit in fits:
        r = torch.cat([fit.u - fit.a @ fit.theta, -fit.ridge.sqrt() * fit.theta])
        parts.append(r * fit.weight**0.5)
    return torch.cat(parts)


def _push(fits: list[_Fit], d_moving: Tensor) -> Tensor:
    """d_moving (C, N, P) to the derivatives of one image's residual (R, P)."""
    parts = [torch.zeros(0, d_moving.shape[-1], dtype=torch.float64)]
    for fit in fits:
        d = torch.einsum("c,cnp->np", fit.theta, d_moving[:, fit.rows])
        d = d - d.mean(0)
        along = fit.inverse @ (fit.a.T @ d)
        parts.append(fit.weight**0.5 * torch.cat([fit.a @ along - d, fit.ridge.sqrt()[:, None] * along]))
    return torch.cat(parts)


def tiles(height: int, width: int, size: int) -> Tensor:
    """Patches (K, 4) of at most size x size pixels that cover an image, each pixel once."""
    rows, columns = (range(0, length, size) for length in (height, width))
    return torch.tensor([[r, min(r + size, height), c, min(c + size, width)] for r in rows for c in columns])


class TiledResidual:
    """`LocalResidual` over tiles of the image, whatever its size."""

    def __init__(self, size: int, rule: PatchRule | None = None) -> None:
        check_range("size", size, 3, 100_000)
        self.size, self.rule = size, rule

    def __call__(self, fixed: Tensor, moving: Tensor, mask: Tensor) -> Linearised:
        """Linearise at fixed (B, 1, h, w), moving (B, C, h, w)."""
        patches = tiles(fixed.shape[-2], fixed.shape[-1], self.size)
        return LocalResidual(patches, self.rule)(fixed, moving, mask)
