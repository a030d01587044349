// SPDX-License-Identifier: Apache-2.0
/** Poses as 16 numbers, row-major, mm; `a_T_b` maps a point of b into a. */

/** `a_T_b` times `b_T_c`. */
export function compose(p, q) {
  const out = new Array(16).fill(0);
  for (let i = 0; i < 4; i++)
    for (let j = 0; j < 4; j++) for (let k = 0; k < 4; k++) out[4 * i + j] += p[4 * i + k] * q[4 * k + j];
  return out;
}

/** Inverse of a rigid pose. */
export function inverse(p) {
  const t = [p[3], p[7], p[11]];
  const out = [p[0], p[4], p[8], 0, p[1], p[5], p[9], 0, p[2], p[6], p[10], 0, 0, 0, 0, 1];
  for (let i = 0; i < 3; i++) out[4 * i + 3] = -(out[4 * i] * t[0] + out[4 * i + 1] * t[1] + out[4 * i + 2] * t[2]);
  return out;
}

/** A point [x, y, z] mapped by a pose. */
export function apply(p, [x, y, z]) {
  return [0, 4, 8].map((i) => p[i] * x + p[i + 1] * y + p[i + 2] * z + p[i + 3]);
}

/** Pixel [column, row] as a point of the image frame, mm. */
export function pixelToImage([[a, b], [, d]], [column, row]) {
  return [a * column + b * row, d * row, 0];
}

/** Point of the image frame (mm; z is ignored) as pixel [column, row]. */
export function imageToPixel([[a, b], [, d]], [x, y]) {
  return [(x - (b * y) / d) / a, y / d];
}

/** Centre of a frame in `ct`, mm; null where the frame is not registered. */
export function centreInCt(header) {
  if (!header.world_T_image || !header.world_T_ct) return null;
  const centre = pixelToImage(header.pixel_to_mm, [(header.width - 1) / 2, (header.height - 1) / 2]);
  return apply(inverse(header.world_T_ct), apply(header.world_T_image, centre));
}

/** A point in LPS mm in words: "L 12.0  P 3.4  S 56.1"; "x 12.0  y 3.4 ..." where the frame is not the patient's. */
export function inWords(ct, inPatient = true) {
  if (!inPatient) return ct.map((value, axis) => `${"xyz"[axis]} ${value.toFixed(1)}`).join("  ");
  return ct
    .map((value, axis) => `${["LR", "PA", "SI"][axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`)
    .join("  ");
}
