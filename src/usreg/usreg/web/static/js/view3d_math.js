// SPDX-License-Identifier: Apache-2.0
// Plain geometry of the 3D view: no three.js, no page. Millimetres; poses are 16 numbers, row by row.
import { apply } from "./geometry.js";

/** Axis 0, 1 or 2 of the source frame, in the target frame. */
export function axis(pose, which) {
  return [pose[which], pose[4 + which], pose[8 + which]];
}

/** Where a pixel centre lies in the texture, 0 to 1: the texture's edge is half a pixel outside the first centre. */
export function pixelToUv(column, row, width, height) {
  return [(column + 0.5) / width, (row + 0.5) / height];
}

/** Middle of points [[x, y], ...] by their bounds. */
export function middle(points) {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (const point of points) {
    for (const k of [0, 1]) {
      low[k] = Math.min(low[k], point[k]);
      high[k] = Math.max(high[k], point[k]);
    }
  }
  return [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
}

/** Buffer of (N, 2) numbers as points. */
export function pairs(buffer) {
  const points = [];
  for (let i = 0; i + 1 < buffer.length; i += 2) points.push([buffer[i], buffer[i + 1]]);
  return points;
}

/** Bounds of the volume's box in ct: {low, high, centre, radius}. */
export function bounds(corners) {
  const low = [0, 1, 2].map((k) => Math.min(...corners.map((corner) => corner[k])));
  const high = [0, 1, 2].map((k) => Math.max(...corners.map((corner) => corner[k])));
  const centre = low.map((value, k) => (value + high[k]) / 2);
  return { low, high, centre, radius: Math.hypot(...high.map((value, k) => value - low[k])) / 2 };
}

/** The twelve edges of a box as index pairs: corners are neighbours where one bit of their number differs. */
export const BOX_EDGES = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((corner) =>
  [1, 2, 4].filter((bit) => !(corner & bit)).map((bit) => [corner, corner | bit]),
);

/** Letters of the patient's sides (LPS: x to the left, y to the back, z to the head) just outside the box. */
export function sideLetters(box) {
  const gap = 0.06 * box.radius;
  const letters = [
    ["R", "L"],
    ["A", "P"],
    ["I", "S"],
  ];
  return letters.flatMap(([first, second], k) => {
    const before = [...box.centre];
    const after = [...box.centre];
    before[k] = box.low[k] - gap;
    after[k] = box.high[k] + gap;
    return [
      { text: first, ct: before },
      { text: second, ct: after },
    ];
  });
}

/** The target's foot on the image plane: its distance is along the plane's normal. */
export function footOnPlane(world_T_image, worldPoint, distanceMm) {
  const normal = axis(world_T_image, 2);
  return worldPoint.map((value, k) => value - distanceMm * normal[k]);
}

/** Corners of a volume's box in ct, at the outer faces of its voxels; bit 0, 1, 2 of a corner's number: i, j, k. */
export function boxCorners(ct_T_index, size) {
  return [0, 1, 2, 3, 4, 5, 6, 7].map((corner) =>
    apply(
      ct_T_index,
      size.map((count, k) => (corner & (1 << k) ? count - 0.5 : -0.5)),
    ),
  );
}
