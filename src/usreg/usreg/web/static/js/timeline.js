// SPDX-License-Identifier: Apache-2.0
/** The timeline of a replay: scrubbing in session time, marks of events; pause and step of any source. */

import { $, h, say, toast } from "./dom.js";
import { INK } from "./palette.js";

/** Colour and shape, so that either alone tells the kind. */
const EVENTS = {
  lost: [INK.vermilion, cross],
  rejected: [INK.orange, triangle],
  initialized: [INK.sky, diamond],
  found: [INK.green, dot],
  gap: [INK.grey, bar],
};
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8];

export class Timeline {
  constructor(session) {
    this.session = session;
    this.stamps = new Float64Array();
    this.seeking = null; // {wanted, running}
    this.canvas = h("canvas", { tabindex: 0, role: "slider", "aria-label": "Time of the session" });
    this.play = h("button", { onclick: () => this.toggle(), "aria-label": "Play or pause" }, "▶");
    const speeds = SPEEDS.map((factor) => h("option", { value: factor, selected: factor === 1 }, `${factor} ×`));
    this.speed = h(
      "select",
      {
        title: "Speed",
        "aria-label": "Speed",
        onchange: () => this.run("speed", { factor: Number(this.speed.value) }),
      },
      speeds,
    );
    this.time = h("span", { class: "time" }, "–");
    this.busy = h("progress", { hidden: true, title: "Frames registered so far" });
    const [back, on] = [
      [-1, "‹"],
      [1, "›"],
    ].map(([by, sign]) =>
      h("button", { title: `One frame ${by < 0 ? "back (←)" : "on (→)"}`, onclick: () => this.step(by) }, sign),
    );
    $("timeline").append(this.play, back, on, this.canvas, this.busy, this.time, this.speed);
    this.canvas.addEventListener("pointerdown", (event) => this.scrub(event, true));
    this.canvas.addEventListener("pointermove", (event) => this.scrub(event, false));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** Whether the source stands still. */
  get still() {
    return this.session.seen.state === "PAUSED";
  }

  hello({ replay }, { stamps }) {
    this.replay = replay;
    $("timeline").hidden = !replay;
    if (!replay) return;
    this.stamps = stamps ?? new Float64Array();
    if (this.speed !== document.activeElement)
      this.speed.value = SPEEDS.reduce((a, b) => (Math.abs(b - replay.speed) < Math.abs(a - replay.speed) ? b : a));
    const { registering } = replay;
    this.busy.hidden = !registering;
    if (registering)
      Object.assign(this.busy, {
        max: registering.total,
        value: registering.done,
        title: `${registering.done} of ${registering.total} frames registered`,
      });
    this.draw();
  }

  frame(header) {
    if (!this.replay) return;
    this.index = header.index;
    this.draw();
  }

  show() {
    if (!this.replay) return;
    const words = this.still ? "▶" : "❚❚";
    say(this.play, words);
    this.play.disabled = this.session.refusal("pause") !== "";
    this.play.title = this.session.refusal("pause");
    this.speed.disabled = this.session.refusal("speed") !== "";
  }

  toggle() {
    if (this.session.refusal("pause")) return;
    const ended = this.session.status?.state === "ended";
    if (ended && this.replay) return this.seek(0).then(() => this.run("pause", { on: false }));
    this.run("pause", { on: !this.still });
  }

  step(by) {
    if (this.replay) {
      const last = this.seeking?.wanted ?? this.index ?? 0;
      this.seek(Math.min(this.replay.count - 1, Math.max(0, last + by)));
    } else if (by > 0 && this.still && !this.session.refusal("step")) this.run("step");
  }

  async run(name, args) {
    const reply = await this.session.command(name, args);
    if (!reply.ok) toast(reply.message, "bad");
  }

  /** Show a frame. While one seek is out only the newest wish is kept. */
  async seek(index) {
    if (this.seeking) {
      this.seeking.wanted = index;
      return;
    }
    this.seeking = { wanted: index };
    let sent = -1;
    while (this.seeking.wanted !== sent) {
      sent = this.seeking.wanted;
      await this.run("seek", { index: sent });
    }
    this.seeking = null;
  }

  x(stamp_s, width) {
    const { begin_s, end_s } = this.replay;
    return 8 + ((width - 16) * (stamp_s - begin_s)) / Math.max(1e-9, end_s - begin_s);
  }

  indexAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { begin_s, end_s } = this.replay;
    const at = begin_s + ((event.clientX - box.left - 8) / Math.max(1, box.width - 16)) * (end_s - begin_s);
    let [low, high] = [0, this.stamps.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.stamps[middle] < at) low = middle + 1;
      else high = middle;
    }
    return low > 0 && at - this.stamps[low - 1] < this.stamps[low] - at ? low - 1 : low;
  }

  scrub(event, down) {
    if (!this.replay || !this.stamps.length) return;
    if (down) this.canvas.setPointerCapture(event.pointerId);
    this.hover(event);
    if (down || event.buttons & 1) this.seek(this.indexAt(event));
  }

  /** Words of the event under the pointer. */
  hover(event) {
    let words = "";
    if (event) {
      const box = this.canvas.getBoundingClientRect();
      const near = this.replay.events.filter(
        (e) => Math.abs(this.x(e.stamp_s, box.width) - (event.clientX - box.left)) < 7,
      );
      words = near
        .slice(0, 4)
        .map((e) => `${(e.stamp_s - this.replay.begin_s).toFixed(2)} s ${e.kind}: ${e.text}`)
        .join("\n");
    }
    this.canvas.title = words;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.replay || !width) return;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const { begin_s, end_s, count, events, registering } = this.replay;
    const middle = height / 2;
    g.fillStyle = "#26313c";
    g.fillRect(8, middle - 3, width - 16, 6);
    const stamp = this.stamps[this.index] ?? begin_s;
    const at = this.x(stamp, width);
    g.fillStyle = registering ? "#3c4a57" : INK.blue;
    g.fillRect(8, middle - 3, Math.max(0, at - 8), 6);
    for (const { stamp_s, kind } of events) {
      const [colour, shape] = EVENTS[kind] ?? EVENTS.gap;
      g.fillStyle = g.strokeStyle = colour;
      g.lineWidth = 2;
      shape(g, this.x(stamp_s, width), kind === "rejected" || kind === "gap" ? middle + 13 : middle - 13);
    }
    g.fillStyle = INK.white;
    g.fillRect(at - 1.5, 3, 3, height - 6);
    g.beginPath();
    g.arc(at, middle, 7, 0, 7);
    g.fill();
    const words = `${(stamp - begin_s).toFixed(2)} / ${(end_s - begin_s).toFixed(2)} s`;
    say(this.time, words);
    this.time.title = `frame ${(this.index ?? 0) + 1} of ${count}`;
    for (const [name, value] of [
      ["valuemin", 0],
      ["valuemax", count - 1],
      ["valuenow", this.index ?? 0],
      ["valuetext", words],
    ])
      this.canvas.setAttribute(`aria-${name}`, value);
  }
}

function cross(g, x, y) {
  g.beginPath();
  g.moveTo(x - 4, y - 4);
  g.lineTo(x + 4, y + 4);
  g.moveTo(x + 4, y - 4);
  g.lineTo(x - 4, y + 4);
  g.stroke();
}

function shape(g, points) {
  g.beginPath();
  for (const [x, y] of points) g.lineTo(x, y);
  g.fill();
}

function triangle(g, x, y) {
  shape(g, [
    [x, y - 4],
    [x + 4.5, y + 4],
    [x - 4.5, y + 4],
  ]);
}

function diamond(g, x, y) {
  shape(g, [
    [x, y - 6],
    [x + 5, y],
    [x, y + 6],
    [x - 5, y],
  ]);
}

function dot(g, x, y) {
  g.beginPath();
  g.arc(x, y, 4, 0, 7);
  g.fill();
}

function bar(g, x, y) {
  g.fillRect(x - 5, y - 2, 10, 4);
}
