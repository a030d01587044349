// SPDX-License-Identifier: Apache-2.0
/** The socket: connects, connects again with growing pauses, measures the server's clock. Runs in the worker. */

import { Clock } from "./clock.js";
import { decode } from "./wire.js";

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 4000;
const QUICK_PINGS = 8; // to know the clock soon
const PING_MS = [120, 2000];
const SILENT_MS = 9000; // no answer for so long: the connection is dead even if the socket does not know it

export class Link {
  /**
   * @param {string} url
   * @param {(message: {header: object, buffers: object}) => void} onMessage
   * @param {(open: boolean, why: string) => void} onChange
   */
  constructor(url, onMessage, onChange) {
    Object.assign(this, { url, onMessage, onChange, clock: new Clock(), wait: FIRST_WAIT_MS, why: "", open: false });
    this.connect();
  }

  connect() {
    const socket = (this.socket = new WebSocket(this.url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.wait = FIRST_WAIT_MS;
      this.open = true;
      this.why = "";
      this.clock.reset();
      this.pings = 0;
      this.heard = performance.now();
      this.ping();
      this.onChange(true, "");
    };
    socket.onmessage = (event) => socket === this.socket && this.take(event.data);
    socket.onclose = (event) => socket === this.socket && this.lost(event.reason);
  }

  take(data) {
    this.heard = performance.now();
    if (!(data instanceof ArrayBuffer)) return;
    let message;
    try {
      message = decode(data);
    } catch (error) {
      this.why = String(error.message);
      this.socket.close(1002, "message not understood");
      return;
    }
    const { header } = message;
    if (header.type === "pong") this.clock.pong(header.client_ms, header.server_s, this.heard);
    else if (header.type === "bye") this.why = header.reason;
    else {
      if (header.type === "hello") this.clock.guess(header.server_s, this.heard);
      this.onMessage(message);
    }
  }

  lost(reason) {
    clearTimeout(this.timer);
    this.open = false;
    this.onChange(false, this.why || reason || "");
    setTimeout(() => this.connect(), this.wait * (0.8 + 0.4 * Math.random()));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
  }

  ping() {
    if (!this.open) return;
    const now = performance.now();
    if (now - this.heard > SILENT_MS) {
      const socket = this.socket;
      this.socket = null; // its own close event would come too late
      socket.close();
      this.lost("no answer from the server");
      return;
    }
    this.send({ type: "ping", client_ms: now });
    this.pings += 1;
    this.timer = setTimeout(() => this.ping(), PING_MS[this.pings < QUICK_PINGS ? 0 : 1]);
  }

  /** @returns {boolean} whether it could be sent */
  send(message) {
    if (!this.open || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }
}
