// SPDX-License-Identifier: Apache-2.0
/** What a person can set of the 2D picture; page and worker share it. */

export const SETTINGS = {
  panes: ["fused"], // of "us", "slice", "fused"
  mode: "alpha", // or "checkerboard"
  opacity: 0.45,
  tile_mm: 12,
  contours: true,
  names: true,
  windows: { us: [255, 127.5], slice: [255, 127.5] }, // width and level of grey values
};
