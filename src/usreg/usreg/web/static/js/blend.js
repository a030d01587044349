// SPDX-License-Identifier: Apache-2.0
/** Frame and slice into one picture, as `usreg.fusion.compose` does: a table for all pairs of grey values. */

const LEAN = [1.6, 1.0, 0.4]; // red, green, blue: the slice leans to orange, the frame to blue
const TINT = [1.0, 0.69, 0.25]; // amber
const DIM = 0.55; // of a picture that is not the present

/** Grey values through a window: [width, level], both 0 to 255 and more; [255, 127.5] changes nothing. */
export function windowed([width, level]) {
  const low = level - width / 2;
  return Float64Array.from({ length: 256 }, (_, v) =>
    Math.min(255, Math.max(0, ((v - low) * 255) / Math.max(1, width))),
  );
}

/** Share of the slice in red, green, blue. */
export function shares(opacity) {
  return LEAN.map((lean) => Math.min(1, opacity * lean));
}

/** RGBA in one number, as a little-endian Uint32 of ImageData holds it; grey and dim where it is not the present. */
function colour(r, g, b, old) {
  if (old) r = g = b = DIM * (0.299 * r + 0.587 * g + 0.114 * b);
  return (0xff000000 | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;
}

/** Tables of one setting. Made again only when a setting changes; a frame then costs one look-up a pixel. */
export class Tables {
  constructor() {
    this.mixed = new Uint32Array(65536); // [frame << 8 | slice]
    this.frame = new Uint32Array(256);
    this.slice = new Uint32Array(256); // grey; 0: not shown
    this.amber = new Uint32Array(256);
    this.made = "";
  }

  /** @param {{opacity: number, windows: {us: number[], slice: number[]}}} settings @param {boolean} old */
  use({ opacity, windows }, old) {
    const wanted = JSON.stringify([opacity, windows.us, windows.slice, old]);
    if (wanted === this.made) return;
    this.made = wanted;
    const f = windowed(windows.us);
    const s = windowed(windows.slice);
    const [r, g, b] = shares(opacity);
    for (let i = 0; i < 256; i++) {
      this.frame[i] = colour(f[i], f[i], f[i], old);
      this.slice[i] = i ? colour(s[i], s[i], s[i], old) : 0xff000000;
      this.amber[i] = colour(TINT[0] * s[i], TINT[1] * s[i], TINT[2] * s[i], old);
      const row = i << 8;
      this.mixed[row] = this.frame[i];
      for (let j = 1; j < 256; j++) {
        const v = f[i];
        const w = s[j] - v;
        this.mixed[row | j] = colour(v + r * w, v + g * w, v + b * w, old);
      }
    }
  }
}

/** Every pixel through a table of 256. */
export function paint(out, image, table) {
  for (let i = 0; i < out.length; i++) out[i] = table[image[i]];
}

/** Both mixed; the grey frame where the slice is 0. */
export function blend(out, image, slice, tables) {
  const table = tables.mixed;
  for (let i = 0; i < out.length; i++) out[i] = table[(image[i] << 8) | slice[i]];
}

/** Fields of the frame and of the slice in turn; `tile` is their edge in pixels. */
export function checkerboard(out, image, slice, width, tile, tables) {
  const columns = Uint8Array.from({ length: width }, (_, column) => Math.floor(column / tile) & 1);
  for (let start = 0, row = 0; start < out.length; start += width, row++) {
    const odd = Math.floor(row / tile) & 1;
    for (let column = 0; column < width; column++) {
      const s = slice[start + column];
      out[start + column] = s && columns[column] !== odd ? tables.amber[s] : tables.frame[image[start + column]];
    }
  }
}
