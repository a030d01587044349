# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics, Jacobian and damped least squares for one arm, pose after pose; compiled.

The same numbers as `Chain.forward` and `Chain.jacobian` (a test compares them). The 6x6 system is solved here, not by
LAPACK, so that the last digit does not depend on the machine's library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import njit

UNREACHED, LIMIT, SPEED = 1, 2, 3


@njit()
def _product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
    for i in range(3):
        for j in range(4):
            s = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]
            out[i, j] = s + a[i, 3] if j == 3 else s


@njit()
def forward(
    origins: NDArray[Any], tails: NDArray[Any], axes: NDArray[Any], slides: NDArray[Any], tip: NDArray[Any],
    q: NDArray[Any], pose: NDArray[Any], jacobian: NDArray[Any],
) -> None:  # fmt: skip
    """base_T_flange into `pose` (4, 4) and the geometric Jacobian (v, w) at the flange into `jacobian` (6, n)."""
    n = len(q)
    pose[...] = np.eye(4)
    joint, moved, move = np.eye(4), np.eye(4), np.eye(4)
    points = np.empty((n, 3))
    for i in range(n):
        _product(pose, origins[i], joint)
        ax, ay, az = axes[i, 0], axes[i, 1], axes[i, 2]
        for r in range(3):
            points[i, r] = joint[r, 3]
            jacobian[3 + r, i] = joint[r, 0] * ax + joint[r, 1] * ay + joint[r, 2] * az
        move[...] = np.eye(4)
        if slides[i]:
            move[0, 3], move[1, 3], move[2, 3] = q[i] * ax, q[i] * ay, q[i] * az
        else:
            s, c = np.sin(q[i]), 1.0 - np.cos(q[i])
            move[0, 0], move[0, 1], move[0, 2] = 1 - c * (ay * ay + az * az), c * ax * ay - s * az, c * ax * az + s * ay
            move[1, 0], move[1, 1], move[1, 2] = c * ax * ay + s * az, 1 - c * (ax * ax + az * az), c * ay * az - s * ax
            move[2, 0], move[2, 1], move[2, 2] = c * ax * az - s * ay, c * ay * az + s * ax, 1 - c * (ax * ax + ay * ay)
        _product(joint, move, moved)
        _product(moved, tails[i], pose)
    moved[...] = pose
    _product(moved, tip, pose)
    for i in range(n):
        wx, wy, wz = jacobian[3, i], jacobian[4, i], jacobian[5, i]
        if slides[i]:
            jacobian[0, i], jacobian[1, i], jacobian[2, i] = wx, wy, wz
            jacobian[3, i], jacobian[4, i], jacobian[5, i] = 0.0, 0.0, 0.0
        else:
            lx, ly, lz = pose[0, 3] - points[i, 0], pose[1, 3] - points[i, 1], pose[2, 3] - points[i, 2]
            jacobian[0, i], jacobian[1, i], jacobian[2, i] = wy * lz - wz * ly, wz * lx - wx * lz, wx * ly - wy * lx


@njit()
def twist_to(pose: NDArray[Any], target: NDArray[Any], out: NDArray[Any]) -> None:
    """(v, w) (6,) in base axes from a pose to a target; the rotation by the logarithm, below half a turn."""
    r = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            r[i, j] = target[i, 0] * pose[j, 0] + target[i, 1] * pose[j, 1] + target[i, 2] * pose[j, 2]
    x, y, z = 0.5 * (r[2, 1] - r[1, 2]), 0.5 * (r[0, 2] - r[2, 0]), 0.5 * (r[1, 0] - r[0, 1])
    s, c = np.sqrt(x * x + y * y + z * z), 0.5 * (r[0, 0] + r[1, 1] + r[2, 2] - 1.0)
    factor = np.arctan2(s, c) / s if s > 1e-12 else 1.0
    for i in range(3):
        out[i] = target[i, 3] - pose[i, 3]
    out[3], out[4], out[5] = factor * x, factor * y, factor * z


@njit()
def _solve(m: NDArray[Any], b: NDArray[Any]) -> None:
    """Solve m x = b (symmetric, positive) in place by Cholesky's factorisation; x is left in b."""
    n = len(b)
    for j in range(n):
        for k in range(j):
            m[j, j] -= m[j, k] * m[j, k]
        m[j, j] = np.sqrt(max(m[j, j], 1e-30))
        for i in range(j + 1, n):
            for k in range(j):
                m[i, j] -= m[i, k] * m[j, k]
            m[i, j] /= m[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= m[i, k] * b[k]
        b[i] /= m[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= m[k, i] * b[k]
        b[i] /= m[i, i]


@njit()
def _step(
    jacobian: NDArray[Any], error: NDArray[Any], wish: NDArray[Any], free: NDArray[Any], damping: float, length: float
) -> NDArray[Any]:
    """Joint step J+ (error - J wish) + wish over the free joints; rotations weigh `length` mm per rad."""
    n = jacobian.shape[1]
    j = jacobian.copy()
    for i in range(n):
        j[3:, i] *= length
        if not free[i]:
            j[:, i] = 0.0
    b = error.copy()
    b[3:] *= length
    for r in range(6):
        for i in range(n):
            b[r] -= j[r, i] * wish[i]
    m = np.zeros((6, 6))
    trace = 0.0
    for r in range(6):
        for c in range(6):
            for i in range(n):
                m[r, c] += j[r, i] * j[c, i]
        trace += m[r, r]
    for r in range(6):
        m[r, r] += damping * trace / 6.0
    _solve(m, b)
    step = wish.copy()
    for i in range(n):
        for r in range(6):
            step[i] += j[r, i] * b[r]
    return step


@njit()
def follow_poses(
    origins: NDArray[Any], tails: NDArray[Any], axes: NDArray[Any], slides: NDArray[Any], tip: NDArray[Any],
    targets: NDArray[Any], stamps: NDArray[Any], q: NDArray[Any], given: NDArray[Any], low: NDArray[Any],
    high: NDArray[Any], speed: NDArray[Any], middle: NDArray[Any], span: NDArray[Any], centring: float,
    iterations: int, tolerance_mm: float, tolerance_rad: float, length: float, out: NDArray[Any],
) -> tuple[int, int, int, float]:  # fmt: skip
    """Joints (N, n) into `out`; (row, reason, joint, mm left) where it fails, reason 0 where it does not."""
    n = len(q)
    pose, jacobian, error = np.eye(4), np.zeros((6, n)), np.zeros(6)
    free, wish, nothing = np.ones(n, np.bool_), np.zeros(n), np.zeros(n)
    for t in range(len(targets)):
        for i in range(n):
            free[i] = not np.isfinite(given[t, i])
            if not free[i]:
                q[i] = given[t, i]
        dt = stamps[t] - stamps[t - 1] if t > 0 else 0.0
        for i in range(n):  # towards the middle, never with more than a tenth of the allowed speed
            way = -centring * (q[i] - middle[i]) / span[i] * dt
            most = min(0.1 * speed[i] * dt, 0.01)
            wish[i] = min(max(way, -most), most) if free[i] else 0.0
        reached, stuck, left = False, -1, 0.0
        for iteration in range(iterations if t > 0 else 20 * iterations):
            forward(origins, tails, axes, slides, tip, q, pose, jacobian)
            twist_to(pose, targets[t], error)
            left = np.sqrt(error[0] ** 2 + error[1] ** 2 + error[2] ** 2)
            turn = np.sqrt(error[3] ** 2 + error[4] ** 2 + error[5] ** 2)
            if left <= tolerance_mm and turn <= tolerance_rad and (iteration > 0 or t == 0):
                reached = True
                break
            cost = left**2 + (length * turn) ** 2
            damping = min(1e-2, 1e-12 + 1e-4 * cost / 100.0**2)
            step = _step(jacobian, error, wish if iteration == 0 else nothing, free, damping, length)
            largest = np.abs(step).max()
            scale = min(1.0, 0.2 / largest) if largest > 0 else 1.0
            stuck = -1
            for i in range(n):
                if free[i]:
                    moved = q[i] + scale * step[i]
                    if moved < low[i] or moved > high[i]:
                        stuck = i
                    q[i] = min(max(moved, low[i]), high[i])
        if not reached:
            worst, joint = 1e30, 0
            for i in range(n):
                room = min(q[i] - low[i], high[i] - q[i]) / span[i]
                if free[i] and room < worst:
                    worst, joint = room, i
            return t, (LIMIT if stuck >= 0 else UNREACHED), (stuck if stuck >= 0 else joint), left
        out[t] = q
        if t > 0:
            for i in range(n):
                if abs(out[t, i] - out[t - 1, i]) > speed[i] * dt:
                    return t, SPEED, i, 0.0
    return 0, 0, 0, 0.0
