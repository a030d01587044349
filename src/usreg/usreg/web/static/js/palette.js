// SPDX-License-Identifier: Apache-2.0
/** Colours (Okabe and Ito) that people with colour-vision deficiency can tell apart; shapes stand beside them. */

export const INK = {
  white: "#ffffff",
  light: "#cfd8df",
  grey: "#aab4bc",
  dim: "#82909c",
  orange: "#e69f00",
  sky: "#56b4e9",
  green: "#009e73",
  yellow: "#f0e442",
  blue: "#0072b2",
  vermilion: "#d55e00",
  purple: "#cc79a7",
};

/** [r, g, b] as CSS. */
export function rgb([r, g, b]) {
  return `rgb(${r},${g},${b})`;
}
