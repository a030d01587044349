// SPDX-License-Identifier: Apache-2.0
// Between our frame and that of NIfTI and niivue: the only place where the two meet.

/** A point in LPS mm (DICOM, ITK, ours) as RAS mm (NIfTI), or the other way round: x and y change their sign. */
export function swapLpsRas([x, y, z]) {
  return [-x || 0, -y || 0, z]; // no minus zero
}

/** niivue's table of label colours: what has no organ stays clear. */
export function labelTable(organs) {
  const I = [0, ...organs.map(({ value }) => value)];
  const channel = (k) => [0, ...organs.map(({ colour }) => colour[k])];
  const labels = ["", ...organs.map(({ name }) => name)];
  return { R: channel(0), G: channel(1), B: channel(2), A: [0, ...organs.map(() => 255)], I, labels };
}
