// SPDX-License-Identifier: Apache-2.0
/** The page's side of the worker: what has come, and calls that are answered. */

const KEPT = 300; // latencies for figures
const WATCH_MS = 300;
const SILENT_MS = 1500;

export class Session extends EventTarget {
  /** @param {HTMLCanvasElement} canvas @param {object} settings of the picture */
  constructor(canvas, settings) {
    super();
    this.hello = this.scene = this.status = this.frame = null; // newest headers
    this.seen = { state: "WAITING", ageMs: NaN, limitMs: NaN, seq: -1, frames2d: 0, times: {}, clock: {}, why: "" };
    this.latenciesMs = [];
    this.agesMs = [];
    this.calls = new Map();
    this.number = 0;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "usreg picture" });
    this.worker.onmessage = ({ data }) => this[`on_${data.type}`](data);
    this.worker.onerror = (event) => this.broke(event.message || "the worker could not be loaded");
    this.heard = 0; // no word yet: it loads
    this.missed = 0;
    setInterval(() => this.watch(), WATCH_MS);
    const offscreen = canvas.transferControlToOffscreen();
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = location.search; // the token, where one is needed
    this.post({ type: "start", canvas: offscreen, url: url.href, settings }, [offscreen]);
  }

  /** An error in the worker: told once, or it would be told with every frame. */
  broke(words) {
    if (words !== this.told) this.tell("broken", words);
    this.told = words;
  }

  /** The worker decides what is stale. One that is silent cannot: then nothing that is shown may pass for the present. */
  watch() {
    // two looks: after a long task of this thread the worker's words may only wait to be read
    this.missed = this.heard && performance.now() - this.heard > SILENT_MS ? this.missed + 1 : 0;
    if (this.missed < 2) return;
    this.seen = { ...this.seen, state: "CLOSED", why: "the picture's worker does not answer: reload the page" };
    this.tell("state", this.seen);
  }

  post(message, transfer = []) {
    this.worker.postMessage(message, transfer);
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Ask the worker and wait for the answer. */
  call(type, message = {}) {
    const id = ++this.number;
    this.post({ type, id, ...message });
    return new Promise((resolve) => this.calls.set(id, { type, resolve }));
  }

  answer(id, value) {
    this.calls.get(id)?.resolve(value);
    this.calls.delete(id);
  }

  /** Send a command. @returns {Promise<{ok: boolean, message: string, data: object}>} the server's reply */
  command(name, args = {}) {
    return this.call("command", { name, args });
  }

  /** Why a command cannot be given now; "" when it can. */
  refusal(name) {
    if (this.seen.state === "CLOSED" || !this.hello) return "not connected";
    if (this.hello.commands.includes(name)) return "";
    return this.hello.read_only
      ? "this view is read only"
      : `this ${this.hello.kind === "replay" ? "replay" : "session"} does not take "${name}"`;
  }

  /** The newest frame has been shown: the next may come. */
  ready() {
    this.post({ type: "ready" });
  }

  on_link({ open, why }) {
    if (open) this.frame = this.status = null;
    const lost = { ok: false, message: why || "the connection was lost", data: {} };
    for (const [id, { type }] of [...this.calls]) if (type === "command") this.answer(id, lost);
    this.tell("link", open);
  }

  on_kept({ header, buffers }) {
    if (header.type === "reply") return this.answer(header.id, header);
    if (header.type in this) this[header.type] = header;
    this.tell(header.type, { header, buffers });
  }

  on_frame({ header, buffers }) {
    this.frame = header;
    this.tell("frame", { header, buffers });
  }

  on_state(seen) {
    this.heard = performance.now();
    this.missed = 0;
    this.seen = seen;
    this.latenciesMs = [...this.latenciesMs, ...seen.latencies].slice(-KEPT);
    this.agesMs = [...this.agesMs, ...seen.ages].slice(-KEPT);
    this.tell("state", seen);
  }

  on_picked({ id, picked }) {
    this.answer(id, picked);
  }

  on_pixels({ id, pixels }) {
    this.answer(id, pixels);
  }

  on_snapshot({ id, taken, bitmap }) {
    this.answer(id, { ...taken, bitmap });
  }
}
