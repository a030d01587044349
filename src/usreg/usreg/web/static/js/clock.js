// SPDX-License-Identifier: Apache-2.0
/** The server's clock seen from here: offset by ping and pong, the least round trip of the last minute wins. */

const KEPT_MS = 60_000;

export class Clock {
  constructor() {
    this.reset();
  }

  reset() {
    this.samples = [];
    this.best = null;
  }

  /** A first guess from a message that has just come: late by the way here, which is not known yet. */
  guess(server_s, now_ms) {
    if (!this.samples.length) this.best = { offset_s: server_s - now_ms / 1000, round_ms: Infinity, at_ms: now_ms };
  }

  /** A pong: sent at `client_ms`, answered at `server_s`, back at `now_ms` (performance.now of the same thread). */
  pong(client_ms, server_s, now_ms) {
    const middle_ms = (client_ms + now_ms) / 2;
    this.samples.push({ offset_s: server_s - middle_ms / 1000, round_ms: now_ms - client_ms, at_ms: now_ms });
    this.samples = this.samples.filter((s) => now_ms - s.at_ms <= KEPT_MS);
    this.best = this.samples.reduce((a, b) => (b.round_ms <= a.round_ms ? b : a));
  }

  get known() {
    return this.best !== null;
  }

  /** Half of the best round trip, ms: how far the offset may be wrong. */
  get error_ms() {
    return this.best ? this.best.round_ms / 2 : Infinity;
  }

  /** The server's clock at `now_ms`, seconds. */
  server_s(now_ms = performance.now()) {
    return this.best ? now_ms / 1000 + this.best.offset_s : NaN;
  }
}
