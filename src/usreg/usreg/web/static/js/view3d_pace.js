// SPDX-License-Identifier: Apache-2.0
// How sharp and how often the 3D view may draw, from how long its last frames took.

const SCALES = [1, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35];
const LEAST_PIXELS = 160_000; // with fewer nothing is won: corners of triangles take the time
const BUDGET_MS = 55; // of a frame
const SHARPER_BELOW = 0.75; // of the budget
const FORGET = 3; // frames after a change that do not count: buffers and shaders are made then
const PATIENCE = 40; // frames before the first try to be sharper; each try that fails doubles it
const BUSY_SHARE = 0.75; // of the time that may go into 3D; the rest is for the 2D picture
const ENOUGH_MS = 90; // from a frame to the next: where that is reached, half of the time is left to registration
const LEAST_MS = 14; // from a frame to the next

/** Decides the scale of the drawing buffer (1: one pixel a CSS pixel) and the time of the next frame. */
export class Pace {
  constructor() {
    this.level = 2;
    this.meanMs = NaN;
    this._since = 0;
    this._patience = PATIENCE;
    this._tried = false; // the present level was a try to be sharper
  }

  /** Scale for a moving picture in a pane of `area` CSS pixels. */
  scale(area) {
    return Math.min(1, Math.max(SCALES[this.level], Math.sqrt(LEAST_PIXELS / area)));
  }

  /** A frame at that scale has taken `ms`: remember, and change the level where it does not fit. */
  took(ms) {
    this._since += 1;
    if (this._since <= FORGET) return;
    this.meanMs = Number.isNaN(this.meanMs) ? ms : 0.8 * this.meanMs + 0.2 * ms;
    if (this.meanMs > BUDGET_MS && this._since >= FORGET + 4 && this.level < SCALES.length - 1) {
      if (this._tried) this._patience = Math.min(32 * PATIENCE, 2 * this._patience);
      this._step(1);
    } else if (this.meanMs < SHARPER_BELOW * BUDGET_MS && this._since >= this._patience && this.level > 0)
      this._step(-1);
  }

  /** Milliseconds to wait after a frame that took `ms`. */
  restMs(ms) {
    const rest = Math.max(ms * (1 / BUSY_SHARE - 1), ENOUGH_MS - ms);
    return Math.max(LEAST_MS - ms, Math.min(ms, rest));
  }

  _step(by) {
    this.level += by;
    this.meanMs = NaN;
    this._since = 0;
    this._tried = by < 0;
  }
}
