// SPDX-License-Identifier: Apache-2.0
/** Words on a canvas, with a dark edge so that they can be read on any ground. */

const FACE = "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";

/** Write a line at (x, y), canvas pixels. */
export function text(g, words, x, y, { size, colour, weight = 400, align = "left", base = "alphabetic" }) {
  g.font = `${weight} ${size}px ${FACE}`;
  g.textAlign = align;
  g.textBaseline = base;
  g.lineJoin = "round";
  g.strokeStyle = "rgba(0,0,0,0.85)";
  g.lineWidth = Math.max(2, size / 5);
  g.strokeText(words, x, y);
  g.fillStyle = colour;
  g.fillText(words, x, y);
}

/** Width of a line, canvas pixels. */
export function measured(g, words, size) {
  g.font = `400 ${size}px ${FACE}`;
  return g.measureText(words).width;
}

/** Words in lines of at most `width`, canvas pixels; what does not fit into `lines` is cut with an ellipsis. */
export function wrapped(g, words, size, width, lines) {
  g.font = `400 ${size}px ${FACE}`;
  const out = [];
  for (const word of words.split(/\s+/).filter(Boolean)) {
    const longer = out.length ? `${out.at(-1)} ${word}` : word;
    if (out.length && g.measureText(longer).width <= width) out[out.length - 1] = longer;
    else out.push(word);
  }
  return out.length > lines ? [...out.slice(0, lines - 1), `${out[lines - 1]} …`] : out;
}

/** A distance with its sign, one digit. */
export function signed(value) {
  const words = Math.abs(value).toFixed(1);
  return words === "0.0" ? words : `${value < 0 ? "\u2212" : "+"}${words}`;
}
