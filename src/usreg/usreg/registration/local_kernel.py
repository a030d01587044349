# SPDX-License-Identifier: Apache-2.0
"""Compiled climb on local linear regressions: LNCC and LC2 are one family.

On a patch p the frame's values u are explained by what is sampled of the volume, A = [m, 1] (LNCC) or [m, |grad m|, 1]
(LC2, Wein et al. 2013): SSR_p = min over theta of |u - A theta|^2 + ridge. Score = 1 - sum w_p SSR_p / sum w_p SST_p,
additive over patches and frames. Gauss-Newton by variable projection (Golub & Pereyra 1973, in Kaufman's form): theta,
weights and mask are frozen within an iteration, a step is taken only if the true score rises.

The slow reference is `similarity.local`.
"""

from __future__ import annotations

import numpy as np

from ..compiled import njit
from .climb import _product, _rotation, _solve
from .kernel import SAFE, _inside


@njit(fastmath=SAFE)
def sample_channels(volume, plane, axes, x, y, first, last, full, value, jacobian, known):
    """Sample all channels of samples [first, last).

    Args:
        volume: (D, H, W, C) float32, NaN where unknown. plane, axes: see `kernel.sample_block`.
        full: derivatives are wanted, too.
        value: (N, C); jacobian: (N, C, 6) by (v, w) in image axes about the image centre; known: (N,) bool.

    Returns:
        Count of known samples.
    """
    count, channels, shape = 0, volume.shape[3], volume.shape[:3]
    for i in range(first, last):
        px, py = x[i], y[i]
        u = plane[0, 0] * px + plane[0, 1] * py + plane[0, 2]
        v = plane[1, 0] * px + plane[1, 1] * py + plane[1, 2]
        w = plane[2, 0] * px + plane[2, 1] * py + plane[2, 2]
        known[i] = False
        if not _inside(u, v, w, shape):
            continue
        iu, iv, iw = int(u), int(v), int(w)
        fu, fv, fw = np.float32(u - iu), np.float32(v - iv), np.float32(w - iw)
        good = True
        for c in range(channels):
            a000, a001 = volume[iw, iv, iu, c], volume[iw, iv, iu + 1, c]
            a010, a011 = volume[iw, iv + 1, iu, c], volume[iw, iv + 1, iu + 1, c]
            a100, a101 = volume[iw + 1, iv, iu, c], volume[iw + 1, iv, iu + 1, c]
            a110, a111 = volume[iw + 1, iv + 1, iu, c], volume[iw + 1, iv + 1, iu + 1, c]
            d00, d01, d10, d11 = a001 - a000, a011 - a010, a101 - a100, a111 - a110
            b00, b01, b10, b11 = a000 + fu * d00, a010 + fu * d01, a100 + fu * d10, a110 + fu * d11
            e0, e1 = b01 - b00, b11 - b10
            c0, c1 = b00 + fv * e0, b10 + fv * e1
            moving = c0 + fw * (c1 - c0)
            if not moving == moving:
                good = False
                break
            value[i, c] = moving
            if full:
                gw, gv = c1 - c0, e0 + fw * (e1 - e0)
                h0, h1 = d00 + fv * (d01 - d00), d10 + fv * (d11 - d10)
                gu = h0 + fw * (h1 - h0)
                gx = axes[0, 0] * gu + axes[0, 1] * gv + axes[0, 2] * gw
                gy = axes[1, 0] * gu + axes[1, 1] * gv + axes[1, 2] * gw
                gz = axes[2, 0] * gu + axes[2, 1] * gv + axes[2, 2] * gw
                jacobian[i, c, 0], jacobian[i, c, 1], jacobian[i, c, 2] = gx, gy, gz
                jacobian[i, c, 3], jacobian[i, c, 4] = py * gz, -px * gz
                jacobian[i, c, 5] = px * gy - py * gx
        if good:
            known[i] = True
            count += 1
    return count


@njit()
def fit_patch(members, fixed, value, known, ridge, signed, mean, theta, inverse):
    """Regress a patch's fixed values on what was sampled.

    Args:
        members: (M,) samples of the patch. ridge: (C,) per sample, in squared values of a channel.
        signed: the first coefficient must be positive (one modality), else the patch explains nothing.
        mean: (C + 1,) of the channels and fixed; theta: (C,); inverse: (C, C) of the centred matrix with its ridge;
            all filled.

    Returns:
        Known samples, total sum of squares, and what remains of it with the ridge.
    """
    channels, n = value.shape[1], 0
    mean[:] = 0.0
    for i in members:
        if known[i]:
            n += 1
            for c in range(channels):
                mean[c] += value[i, c]
            mean[channels] += fixed[i]
    theta[:] = 0.0
    inverse[:] = 0.0
    if n == 0:
        return 0, 0.0, 0.0
    for c in range(channels + 1):
        mean[c] /= n
    uu, a, b, d, ua, ub = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in members:
        if known[i]:
            u = fixed[i] - mean[channels]
            p = value[i, 0] - mean[0]
            uu += u * u
            a += p * p
            ua += u * p
            if channels == 2:
                q = value[i, 1] - mean[1]
                b += p * q
                d += q * q
                ub += u * q
    a += n * ridge[0]
    if channels == 1:
        if signed and ua <= 0.0:
            return n, uu, uu
        inverse[0, 0] = 1.0 / a
        theta[0] = ua / a
        return n, uu, uu - theta[0] * ua
    d += n * ridge[1]
    if signed and (d * ua - b * ub <= 0.0 or a * ub - b * ua <= 0.0):
        # the best on the border: one channel alone, the one that explains more with a positive coefficient
        one, two = max(ua, 0.0) ** 2 / a, max(ub, 0.0) ** 2 / d
        if one <= 0.0 and two <= 0.0:
            return n, uu, uu
        if one >= two:
            inverse[0, 0] = 1.0 / a
            theta[0] = ua / a
            return n, uu, uu - one
        inverse[1, 1] = 1.0 / d
        theta[1] = ub / d
        return n, uu, uu - two
    determinant = a * d - b * b
    inverse[0, 0], inverse[1, 1] = d / determinant, a / determinant
    inverse[0, 1] = inverse[1, 0] = -b / determinant
    theta[0] = inverse[0, 0] * ua + inverse[0, 1] * ub
    theta[1] = inverse[1, 0] * ua + inverse[1, 1] * ub
    return n, uu, uu - theta[0] * ua - theta[1] * ub


@njit(fastmath=SAFE)
def push_patch(members, n, fixed, value, jacobian, known, mean, theta, inverse, gradient, matrix):
    """Sum of residual times derivative (6,), and the projected normal matrix (6, 6), of one fitted patch."""
    channels = value.shape[1]
    total, along = np.zeros(6), np.zeros((2, 6))
    gradient[:] = 0.0
    matrix[:] = 0.0
    d, p = np.empty(6), np.zeros(2)
    for i in members:
        if known[i]:
            r = fixed[i] - mean[channels]
            for c in range(channels):
                p[c] = value[i, c] - mean[c]
                r -= theta[c] * p[c]
            for k in range(6):
                d[k] = theta[0] * jacobian[i, 0, k]
            if channels == 2:
                for k in range(6):
                    d[k] += theta[1] * jacobian[i, 1, k]
            for k in range(6):
                total[k] += d[k]
                gradient[k] += r * d[k]
                along[0, k] += p[0] * d[k]
                along[1, k] += p[1] * d[k]
                for m in range(k + 1):
                    matrix[k, m] += d[k] * d[m]
    for k in range(6):
        for m in range(k + 1):
            out = matrix[k, m] - total[k] * total[m] / n
            for c in range(channels):
                for e in range(channels):
                    out -= along[c, k] * inverse[c, e] * along[e, m]
            matrix[k, m] = out
            matrix[m, k] = out


@njit()
def whole_frames(fixed, member_ends, members, totals):
    """Fill totals (P, 2): the frame's sum of squares about its mean in each patch, known voxels or not; samples."""
    begin = 0
    for patch in range(len(member_ends)):
        mean, square, n = 0.0, 0.0, member_ends[patch] - begin
        for i in members[begin : member_ends[patch]]:
            mean += fixed[i]
        mean /= max(1, n)
        for i in members[begin : member_ends[patch]]:
            square += (fixed[i] - mean) ** 2
        totals[patch, 0], totals[patch, 1] = square, n
        begin = member_ends[patch]


@njit()
def measure(scene, rule, pose, work, gradient, matrix, full):
    """Score and overlap of all frames at one pose; fills gradient (6,) and matrix (6, 6) where `full`.

    Args:
        scene: volume (D, H, W, C), index_T_ct (4, 4), x, y, fixed (N,), frame_ends (K,) of the samples,
            ref_T_centre (K, 4, 4), adjoints (K, 6, 6), patch_ends (K,) of the patches, member_ends (P,), members (L,).
        rule: ridge (C,), signed, power, floor, least_share, all_counts: see `local.LocalConfig`.
    """
    volume, index_T_ct, x, y, fixed, frame_ends, ref_T_centre, adjoints, patch_ends, member_ends, members = scene
    ridge, signed, power, floor, least_share, all_counts = rule
    value, jacobian, known, theta, mean, inverse, totals = work
    ct_T_centre, plane4 = np.empty((4, 4)), np.empty((4, 4))
    plane, axes = np.empty((3, 3)), np.empty((3, 3), np.float32)
    g, h, gf, hf, half = np.empty(6), np.empty((6, 6)), np.empty(6), np.empty((6, 6)), np.empty((6, 6))
    gradient[:] = 0.0
    matrix[:] = 0.0
    left, whole, overlap, start, patch, begin = 0.0, 0.0, 0.0, 0, 0, 0
    for frame in range(len(frame_ends)):
        _product(pose, ref_T_centre[frame], ct_T_centre)
        _product(index_T_ct, ct_T_centre, plane4)
        for i in range(3):
            plane[i, 0], plane[i, 1], plane[i, 2] = plane4[i, 0], plane4[i, 1], plane4[i, 3]
            for j in range(3):
                axes[j, i] = plane4[i, j]
        count = sample_channels(volume, plane, axes, x, y, start, frame_ends[frame], full, value, jacobian, known)
        overlap += count / max(1, frame_ends[frame] - start)
        start = frame_ends[frame]
        gf[:] = 0.0
        hf[:] = 0.0
        while patch < patch_ends[frame]:
            own = members[begin : member_ends[patch]]
            n, sst, ssr = fit_patch(own, fixed, value, known, ridge, signed, mean, theta, inverse)
            used = n >= 8 and n >= least_share * len(own)
            weight = 0.0
            if all_counts:
                weight = (totals[patch, 0] / totals[patch, 1] + floor) ** (-power)
                whole += weight * totals[patch, 0]
                left += weight * (totals[patch, 0] - sst + ssr if used else totals[patch, 0])
            elif used:
                weight = (sst / n + floor) ** (-power)
                whole += weight * sst
                left += weight * ssr
            if used:
                if full and ssr < sst:
                    push_patch(own, n, fixed, value, jacobian, known, mean, theta, inverse, g, h)
                    for a in range(6):
                        gf[a] += weight * g[a]
                        for b in range(6):
                            hf[a, b] += weight * h[a, b]
            begin = member_ends[patch]
            patch += 1
        if full:
            adjoint = adjoints[frame]
            half[:] = 0.0
            for a in range(6):
                for c in range(6):
                    gradient[c] += gf[a] * adjoint[a, c]
                    for b in range(6):
                        half[a, c] += hf[a, b] * adjoint[b, c]
            for a in range(6):
                for c in range(6):
                    for d in range(6):
                        matrix[c, d] += adjoint[a, c] * half[a, d]
    if whole <= 1e-9:
        gradient[:] = 0.0
        matrix[:] = 0.0
        return -1.0, overlap / len(frame_ends)
    for a in range(6):
        gradient[a] *= 2.0 / whole
        for b in range(6):
            matrix[a, b] *= 2.0 / whole
    return 1.0 - left / whole, overlap / len(frame_ends)


@njit()
def _log_rotation(r, out):
    """Rotation vector (3,) of a rotation matrix of less than half a turn."""
    x, y, z = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    s = 0.5 * np.sqrt(x * x + y * y + z * z)
    c = 0.5 * (r[0, 0] + r[1, 1] + r[2, 2] - 1.0)
    k = 0.5 if s < 1e-8 else 0.5 * np.arctan2(s, c) / s
    out[0], out[1], out[2] = k * x, k * y, k * z


@njit()
def add_prior(pose, centre, information, gradient, matrix, full):
    """What a prior takes off the score: half the squared Mahalanobis distance of the twist from `centre`.

    The twist is (v in axes of the centre, rotation vector); its derivative by a right step is taken as that of a small
    turn, and only steps that truly rise are accepted.
    """
    relative, twist = np.empty((3, 3)), np.empty(6)
    for i in range(3):
        twist[i] = 0.0
        for k in range(3):
            twist[i] += centre[k, i] * (pose[k, 3] - centre[k, 3])
        for j in range(3):
            total = 0.0
            for k in range(3):
                total += centre[k, i] * pose[k, j]
            relative[i, j] = total
    _log_rotation(relative, twist[3:])
    pull, cost = np.zeros(6), 0.0
    for a in range(6):
        for b in range(6):
            pull[a] += information[a, b] * twist[b]
        cost += 0.5 * twist[a] * pull[a]
    if full:
        turn = np.zeros((6, 6))
        for i in range(3):
            for j in range(3):
                turn[i, j] = relative[i, j]
            turn[3 + i, 3 + i] = 1.0
        for c in range(6):
            for a in range(6):
                gradient[c] -= turn[a, c] * pull[a]
        matrix += turn.T @ information @ turn
    return cost


@njit()
def climb_local(scene, rule, settings, prior, first, last, poses, scores, gradients, matrices):
    """Climb from poses[first:last] in place; arguments as in `climb.climb`, and:

    Args:
        settings: as `climb.climb`; settings[8] = 0 leaves gradients and matrices out (one evaluation, no step).
        prior: pose (4, 4) and information (6, 6) about it (zeros: none), in units of the score.
        scores: (B, 3) score without the prior, overlap, evaluations.
    """
    iterations, tolerance, radius, min_overlap = int(settings[0]), settings[1], settings[2], settings[3]
    volume, samples = scene[0], len(scene[2])
    channels, full, centre, information = volume.shape[3], settings[8] != 0.0, prior[0], prior[1]
    rows = samples if full else 1
    work = (
        np.empty((samples, channels), np.float32), np.empty((rows, channels, 6), np.float32),
        np.zeros(samples, np.bool_), np.zeros(channels), np.zeros(channels + 1), np.zeros((channels, channels)),
        np.empty((len(scene[9]), 2)),
    )  # fmt: skip
    whole_frames(scene[4], scene[9], scene[10], work[6])
    trial, moved, step = np.empty((4, 4)), np.eye(4), np.empty(6)
    gradient, matrix = np.empty(6), np.empty((6, 6))
    for job in range(first, last):
        pose, damping, count = poses[job], settings[4], 1
        score, overlap = measure(scene, rule, pose, work, gradients[job], matrices[job], full)
        value = score - add_prior(pose, centre, information, gradients[job], matrices[job], full)
        floor = min(min_overlap, overlap)
        while full and count < iterations and damping < settings[7]:
            if not _solve(matrices[job], damping, gradients[job], step):
                damping *= settings[6]
                continue
            _rotation(step[3:], moved)
            moved[0, 3], moved[1, 3], moved[2, 3] = step[0], step[1], step[2]
            _product(pose, moved, trial)
            new, share = measure(scene, rule, trial, work, gradient, matrix, True)
            cost = add_prior(trial, centre, information, gradient, matrix, True)
            count += 1
            if new - cost > value and share >= floor:
                pose[:], gradients[job], matrices[job] = trial, gradient, matrix
                score, value, overlap, damping = new, new - cost, share, damping / settings[5]
            else:
                damping *= settings[6]
            shift = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            turn = np.sqrt(step[3] ** 2 + step[4] ** 2 + step[5] ** 2)
            if shift + radius * turn < tolerance:
                break
        scores[job, 0], scores[job, 1], scores[job, 2] = score, overlap, count


@njit()
def tile_gradients(scene, rule, pose, out):
    """Weighted gradient (P, 6) of every patch in reference axes at a pose, and its count of known samples (P,).

    For the covariance: `out` = gradients (P, 6), matrices (K, 6, 6) of the frames, known samples (P,).
    """
    volume, index_T_ct, x, y, fixed, frame_ends, ref_T_centre, adjoints, patch_ends, member_ends, members = scene
    ridge, signed, power, floor, least_share, all_counts = rule
    gradients, matrices, counts = out
    samples, channels = len(x), volume.shape[3]
    value, jacobian = np.empty((samples, channels), np.float32), np.empty((samples, channels, 6), np.float32)
    known = np.zeros(samples, np.bool_)
    theta, mean, inverse = np.zeros(channels), np.zeros(channels + 1), np.zeros((channels, channels))
    ct_T_centre, plane4 = np.empty((4, 4)), np.empty((4, 4))
    plane, axes = np.empty((3, 3)), np.empty((3, 3), np.float32)
    g, h, start, patch, begin = np.empty(6), np.empty((6, 6)), 0, 0, 0
    for frame in range(len(frame_ends)):
        _product(pose, ref_T_centre[frame], ct_T_centre)
        _product(index_T_ct, ct_T_centre, plane4)
        for i in range(3):
            plane[i, 0], plane[i, 1], plane[i, 2] = plane4[i, 0], plane4[i, 1], plane4[i, 3]
            for j in range(3):
                axes[j, i] = plane4[i, j]
        sample_channels(volume, plane, axes, x, y, start, frame_ends[frame], True, value, jacobian, known)
        start = frame_ends[frame]
        adjoint = adjoints[frame]
        while patch < patch_ends[frame]:
            own = members[begin : member_ends[patch]]
            n, sst, ssr = fit_patch(own, fixed, value, known, ridge, signed, mean, theta, inverse)
            counts[patch] = n
            if n >= 8 and n >= least_share * len(own) and ssr < sst:
                weight = (sst / n + floor) ** (-power)
                push_patch(own, n, fixed, value, jacobian, known, mean, theta, inverse, g, h)
                gradients[patch] = weight * (g @ adjoint)
                matrices[frame] += weight * (adjoint.T @ h @ adjoint)
            begin = member_ends[patch]
            patch += 1
