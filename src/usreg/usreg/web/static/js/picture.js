// SPDX-License-Identifier: Apache-2.0
/** The 2D picture on one canvas: ultrasound, slice and fused side by side, or one of them. Runs in the worker. */

import { GROUND, drawEmpty, drawState } from "./banners.js";
import { Tables, blend, checkerboard, paint } from "./blend.js";
import { apply, inverse, pixelToImage } from "./geometry.js";
import { drawPane } from "./marks.js";
import { SETTINGS } from "./settings.js";

const GAP = 6;
const PRINT_HEIGHT = 900;

/** Rectangles of the panes: the last (fused) large, the others small at its side or below it. */
export function arrange(panes, width, height, ratio) {
  const rect = (pane, x, y, w, h) => ({ pane, x, y, w, h });
  if (panes.length === 1) return [rect(panes[0], 0, 0, width, height)];
  const gap = GAP * ratio;
  const [large, small] = [panes.at(-1), panes.slice(0, -1)];
  const n = small.length;
  if (width >= 1.15 * height) {
    const part = Math.round((width - gap) * 0.31);
    const each = (height - gap * (n - 1)) / n;
    return [
      ...small.map((pane, i) => rect(pane, 0, i * (each + gap), part, each)),
      rect(large, part + gap, 0, width - part - gap, height),
    ];
  }
  const part = Math.round((height - gap) * 0.36);
  const each = (width - gap * (n - 1)) / n;
  return [
    rect(large, 0, 0, width, height - part - gap),
    ...small.map((pane, i) => rect(pane, i * (each + gap), height - part, each, part)),
  ];
}

export class Picture {
  /** @param {OffscreenCanvas} canvas */
  constructor(canvas, settings = {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.settings = { ...SETTINGS, ...settings };
    this.tables = new Tables();
    this.scene = null;
    this.begin_s = null; // of a recording
    this.marks = []; // {label, world, colour}: points that a person has set
    this.pointer = null;
    this.ratio = 1;
    this.blendMs = 0;
    this.clear();
  }

  clear() {
    this.layers = {}; // by pane: {canvas, context, data, words, key}
    this.places = []; // by pane: rectangle and transform of what is drawn now
  }

  resize(width, height, ratio) {
    this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
  }

  /** @param {{header: object, buffers: object}|null} frame @param {{state: string, ageMs: number, why: string}} seen */
  draw(frame, seen) {
    this.places = this.drawOn(this.context, this.ratio, frame, seen, this.pointer);
  }

  /** A picture for a file: as large as can be read, without what lies under the pointer. */
  print(frame, seen) {
    const { canvas, ratio } = this;
    const larger = Math.max(1, PRINT_HEIGHT / canvas.height);
    const print = new OffscreenCanvas(Math.round(canvas.width * larger), Math.round(canvas.height * larger));
    this.drawOn(print.getContext("2d", { alpha: false }), ratio * larger, frame, seen, null);
    return print.transferToImageBitmap();
  }

  /** @returns rectangles and transforms of what was drawn */
  drawOn(context, ratio, frame, seen, pointer) {
    const { width, height } = context.canvas;
    context.fillStyle = GROUND;
    context.fillRect(0, 0, width, height);
    const old = seen.state === "STALE" || seen.state === "CLOSED";
    const { scene, settings, marks, begin_s } = this;
    const look = { scene, settings, marks, pointer, begin_s, old };
    const header = frame?.header ?? null;
    const places = [];
    for (const rect of arrange(settings.panes, width, height, ratio)) {
      if (frame) {
        const layer = this.blended(frame, rect.pane, old)?.canvas ?? null;
        places.push({ ...rect, place: drawPane(context, rect, ratio, frame, layer, look) });
      } else drawEmpty(context, rect, ratio);
      drawState(context, rect, ratio, seen, header, begin_s);
    }
    return places;
  }

  /** The picture of a pane in pixels of the frame; made once for a frame and a setting. */
  blended(frame, pane, old) {
    const { header, buffers } = frame;
    if (pane === "slice" && !buffers.slice) return null;
    const layer = this.layer(pane, header.width, header.height);
    const { mode, tile_mm } = this.settings;
    this.tables.use(this.settings, old);
    const key = `${header.seq} ${this.tables.made} ${mode} ${tile_mm}`;
    if (key === layer.key) return layer;
    const before = performance.now();
    this.fill(layer.words, pane, frame, this.tables);
    layer.context.putImageData(layer.data, 0, 0);
    layer.key = key;
    this.blendMs = performance.now() - before;
    return layer;
  }

  fill(words, pane, { header, buffers }, tables) {
    const { image, slice } = buffers;
    const { mode, tile_mm } = this.settings;
    if (pane === "slice") paint(words, slice, tables.slice);
    else if (pane === "us" || !slice) paint(words, image, tables.frame);
    else if (mode === "checkerboard") {
      // three digits, as the library's
      const tile = Math.round((1000 * tile_mm) / header.pixel_to_mm[0][0]) / 1000;
      checkerboard(words, image, slice, header.width, tile, tables);
    } else blend(words, image, slice, tables);
  }

  layer(pane, width, height) {
    const known = this.layers[pane];
    if (known && known.canvas.width === width && known.canvas.height === height) return known;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { alpha: false });
    const data = context.createImageData(width, height);
    return (this.layers[pane] = { canvas, context, data, words: new Uint32Array(data.data.buffer), key: "" });
  }

  /** The fused picture as it would be if it were the present, in pixels of the frame. */
  pixels(frame) {
    if (!frame) return null;
    const { width, height } = frame.header;
    const words = new Uint32Array(width * height);
    const tables = new Tables();
    tables.use(this.settings, false);
    this.fill(words, "fused", frame, tables);
    return { width, height, data: new Uint8ClampedArray(words.buffer), header: frame.header };
  }

  /** Where a point of the canvas (CSS pixels) lies: pane, pixel, world and ct; null outside of the pictures. */
  pick(frame, [x, y]) {
    const at = [x * this.ratio, y * this.ratio];
    const found = this.places.find((p) => at[0] >= p.x && at[0] < p.x + p.w && at[1] >= p.y && at[1] < p.y + p.h);
    if (!found || !frame) return found ? { pane: found.pane, px: null } : null;
    const { header } = frame;
    const px = found.place.toPixel(at);
    const inside = px[0] >= -0.5 && px[1] >= -0.5 && px[0] < header.width - 0.5 && px[1] < header.height - 0.5;
    if (!inside) return { pane: found.pane, px: null };
    const point = pixelToImage(header.pixel_to_mm, px);
    const world = header.world_T_image && apply(header.world_T_image, point);
    const ct = world && header.world_T_ct && apply(inverse(header.world_T_ct), world);
    const { seq, stamp_s, index } = header;
    return { pane: found.pane, px, world: world || null, ct: ct || null, seq, stamp_s, index };
  }
}
