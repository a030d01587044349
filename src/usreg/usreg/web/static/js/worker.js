// SPDX-License-Identifier: Apache-2.0
/**
 * Owns the socket and the 2D picture, so that neither waits for 3D or plots in the page's thread.
 * From the page: start, settings, size, pointer, pick, command, marks, ready, pixels, snapshot.
 * To the page: link, kept (hello, scene, organ, status, reply), frame (newest only), state, picked, pixels, snapshot.
 */

import { Link } from "./link.js";
import { Picture } from "./picture.js";
import { ageMs, decide } from "./state.js";
import { detach } from "./wire.js";

const STATE_MS = 50;
const BEGIN_MS = 3000; // before that a connection that is not there yet is not called lost
const SOON_MS = 16;
const FOR_THE_PAGE = ["image", "outline", "trail"]; // of a frame
// what the bar shows: it must not wait for 3D, which the page's copy of a frame does
const FOR_THE_BAR = [
  "status",
  "reason",
  "note",
  "system",
  "score",
  "probability",
  "sigma_mm",
  "pose_age_s",
  "tre_mm",
  "period_s",
];

let link = null;
let picture = null;
let hello = null;
let status = null;
let frame = null; // newest, {header, buffers}
let why = ""; // the connection was lost
let pageReady = true;
let handed = null; // newest frame that the page has
const counts = { frames2d: 0, drawMs: 0, latencies: [], ages: [] };

const post = (message, transfer = []) => self.postMessage(message, transfer);

function look() {
  const beginning = performance.now() < BEGIN_MS && !why && !hello;
  const known = {
    connected: link.open || beginning,
    frame: frame?.header ?? null,
    status,
    hello,
    server_s: link.clock.server_s(),
  };
  return { ...decide(known), why };
}

function draw() {
  const before = performance.now();
  picture.draw(frame, look());
  counts.drawMs = performance.now() - before;
}

let asked = false;
function drawSoon() {
  if (asked) return;
  asked = true;
  setTimeout(() => {
    asked = false;
    draw();
  }, SOON_MS);
}

function drawn() {
  const server_s = link.clock.server_s();
  counts.frames2d += 1;
  counts.latencies.push(1000 * (server_s - frame.header.made_server_s));
  counts.ages.push(ageMs(frame.header, server_s));
  link.send({ type: "ack", seq: frame.header.seq, drawn_server_s: Number.isFinite(server_s) ? server_s : null });
}

function hand() {
  if (!pageReady || frame === null || frame === handed) return;
  pageReady = false;
  handed = frame;
  const { copies, transfer } = detach(frame.buffers, FOR_THE_PAGE);
  post({ type: "frame", header: frame.header, buffers: copies }, transfer);
}

function forget() {
  frame = status = handed = null;
  picture.clear();
}

function onMessage(message) {
  const { header, buffers } = message;
  if (header.type === "frame") {
    const changed = frame?.header.status !== header.status;
    frame = message;
    draw();
    drawn();
    hand();
    if (changed) tick();
    return;
  }
  if (header.type === "hello") {
    hello = header; // comes again when something in it changes
    picture.begin_s = header.replay?.begin_s ?? null;
  } else if (header.type === "scene") picture.scene = header;
  else if (header.type === "status") status = header;
  const { copies, transfer } = detach(buffers, Object.keys(buffers));
  post({ type: "kept", header, buffers: copies }, transfer);
}

function onChange(open, reason) {
  why = reason;
  if (open) forget(); // perhaps another session
  post({ type: "link", open, why });
  tick();
}

let last = "";
function tick() {
  const seen = look();
  const { state, limitMs } = seen;
  const { frames2d, drawMs, latencies, ages } = counts;
  counts.latencies = [];
  counts.ages = [];
  const clock = { error_ms: link.clock.error_ms, server_s: link.clock.server_s() };
  const times = { drawMs, blendMs: picture.blendMs };
  const seq = frame?.header.seq ?? -1;
  const told = frame && Object.fromEntries(FOR_THE_BAR.map((name) => [name, frame.header[name]]));
  post({ type: "state", state, ageMs: seen.ageMs, limitMs, seq, told, frames2d, latencies, ages, times, clock, why });
  // a picture that grows older says how old it is
  const key = `${state} ${state === "STALE" ? Math.round(seen.ageMs / 100) : ""} ${why}`;
  if (key !== last) draw();
  last = key;
}

const ON = {
  start({ canvas, url, settings }) {
    picture = new Picture(canvas, settings);
    link = new Link(url, onMessage, onChange);
    setInterval(tick, STATE_MS);
  },
  size({ width, height, ratio }) {
    picture.resize(width, height, ratio);
    draw();
  },
  settings({ settings }) {
    Object.assign(picture.settings, settings);
    drawSoon();
  },
  marks({ marks }) {
    picture.marks = marks;
    drawSoon();
  },
  pointer({ at }) {
    picture.pointer = at;
    drawSoon();
  },
  pick({ id, at }) {
    post({ type: "picked", id, picked: picture.pick(frame, at) });
  },
  command({ id, name, args }) {
    if (link.send({ type: "command", id, name, args })) return;
    post({ type: "kept", header: { type: "reply", id, ok: false, message: "not connected", data: {} }, buffers: {} });
  },
  ready() {
    pageReady = true;
    hand();
  },
  pixels({ id }) {
    const pixels = picture.pixels(frame);
    post({ type: "pixels", id, pixels }, pixels ? [pixels.data.buffer] : []);
  },
  snapshot({ id }) {
    const seen = look();
    const taken = { header: frame?.header ?? null, ...seen, server_s: link.clock.server_s() };
    const bitmap = picture.print(frame, seen);
    post({ type: "snapshot", id, taken, bitmap }, [bitmap]);
  },
};

self.onmessage = ({ data }) => ON[data.type](data);
