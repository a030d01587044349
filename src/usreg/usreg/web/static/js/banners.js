// SPDX-License-Identifier: Apache-2.0
/** What a pane says in words: which it is, for research only, why there is no slice, that it is not the present. */

import { INK } from "./palette.js";
import { measured, text, wrapped } from "./words.js";

export const GROUND = "#05070a";
const TITLES = { us: "ULTRASOUND", slice: "SLICE", fused: "FUSED" };
const NOTICE = "RESEARCH USE ONLY";

/** A stamp as seconds of the recording; a live one as the time of day where it is one (UTC). */
export function when(stamp_s, begin_s) {
  if (begin_s !== null) return `${(stamp_s - begin_s).toFixed(2)} s`;
  return stamp_s > 1e9 ? `${new Date(1000 * stamp_s).toISOString().slice(11, 22)} UTC` : `${stamp_s.toFixed(2)} s`;
}

/** Size of small text in a pane, canvas pixels. */
export function letterSize(rect, ratio) {
  return Math.max(12.5 * ratio, Math.min(17 * ratio, rect.h / 36, rect.w / 32));
}

/** Name of the pane, and why no volume is laid over the frame. */
export function title(pen, layer) {
  const { g, rect, size, ratio, look } = pen;
  const modality = rect.pane === "us" ? "" : ` ${look.scene?.volume?.modality ?? ""}`;
  const words = TITLES[rect.pane] + (rect.pane === "slice" ? modality : "");
  const style = { size: 0.95 * size, colour: INK.dim, weight: 600 };
  const [x, y] = [rect.x + 0.7 * size, rect.y + 1.35 * size];
  text(g, words, x, y, style);
  const levels = levelWords(rect.pane, look.settings.windows);
  const after = measured(g, words, 1.05 * style.size) + size;
  const beside = after + measured(g, levels, style.size) < rect.w / 2 - 2 * size; // the letter at the top
  text(g, levels, beside ? x + after : x, beside ? y : y + 1.3 * size, style);
  if (rect.pane === "us" || (layer && pen.header.fused)) return;
  refused(pen, 4 * ratio);
}

/** Window and level where they were changed: nobody shall take a dark picture for dark tissue. */
function levelWords(pane, windows) {
  const changed = Object.entries(windows).filter(
    ([name, [w, l]]) => (pane === "fused" || pane === name) && (w !== 255 || l !== 127.5),
  );
  const name = (key) => (pane === "fused" ? ` ${key === "us" ? "US" : "slice"}` : "");
  return changed.map(([key, [w, l]]) => `${name(key)} W ${Math.round(w)} L ${Math.round(l)}`.trim()).join("  ");
}

/** No volume is laid over the frame: the word and the reason, and a red edge unless it only has to be waited for. */
function refused(pen, thick) {
  const { g, rect, size, header } = pen;
  const calm = header.status === "WAITING";
  const colour = calm ? INK.sky : INK.vermilion;
  if (!calm) {
    g.strokeStyle = colour;
    g.lineWidth = thick;
    g.strokeRect(rect.x + thick / 2, rect.y + thick / 2, rect.w - thick, rect.h - thick);
  }
  const big = Math.min(2.4 * size, rect.w / 9);
  let y = rect.y + 1.9 * size + big;
  text(g, header.status.replaceAll("_", " "), rect.x + 0.7 * size, y, { size: big, colour, weight: 700 });
  for (const line of wrapped(g, header.reason, 1.05 * size, rect.w - 1.4 * size, 3)) {
    y += 1.45 * size;
    text(g, line, rect.x + 0.7 * size, y, { size: 1.05 * size, colour: INK.white });
  }
}

const shown = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

/** The notice, and what is known of the newest estimate. */
export function foot(pen) {
  const { g, rect, size, header } = pen;
  const y = rect.y + rect.h - 0.6 * size;
  text(g, NOTICE, rect.x + 0.7 * size, y, { size: 0.95 * size, colour: INK.light, weight: 600 });
  const colour = pen.look.old ? INK.dim : header.status === "ACCEPTED" ? INK.green : INK.orange;
  const score = header.score === null ? "" : `  score ${shown(header.score, 2)}`;
  const time = `  ${when(header.stamp_s, pen.look.begin_s)}`;
  const words = rect.w < 30 * size ? header.status : `${header.status}${score}${rect.w > 44 * size ? time : ""}`;
  const style = { size: 0.95 * size, align: "right", colour, weight: 600 };
  text(g, `${pen.look.old ? "was " : ""}${words.replaceAll("_", " ")}`, rect.x + rect.w - 0.7 * size, y, style);
}

/** A pane before the first picture. */
export function drawEmpty(g, rect, ratio) {
  const size = letterSize(rect, ratio);
  text(g, TITLES[rect.pane], rect.x + 0.7 * size, rect.y + 1.35 * size, {
    size: 0.95 * size,
    colour: INK.dim,
    weight: 600,
  });
  text(g, NOTICE, rect.x + 0.7 * size, rect.y + rect.h - 0.6 * size, {
    size: 0.95 * size,
    colour: INK.light,
    weight: 600,
  });
}

/** Small words for a picture that stands still on purpose. */
function drawPaused(g, rect, ratio, words) {
  const size = letterSize(rect, ratio);
  const style = { size: 1.25 * size, colour: INK.sky, weight: 700, align: "right" };
  text(g, `PAUSED ${words}`, rect.x + rect.w - 0.7 * size, rect.y + 1.5 * size, style);
}

/** The words that nobody may overlook: across the pane, readable from two metres. */
export function drawState(g, rect, ratio, { state, ageMs, why }, header, begin_s) {
  if (state === "LIVE") return;
  if (state === "PAUSED" && header) return drawPaused(g, rect, ratio, when(header.stamp_s, begin_s));
  const [word, line, colour] = {
    STALE: ["STALE", `this picture is ${(ageMs / 1000).toFixed(1)} s old`, INK.vermilion],
    CLOSED: ["DISCONNECTED", why || "connecting again", INK.vermilion],
    PAUSED: ["PAUSED", "", INK.sky],
    WAITING: ["WAITING", "for the first picture", INK.grey],
  }[state];
  const size = Math.min(rect.h * 0.13, (rect.w * 1.35) / word.length, 110 * ratio);
  const y = rect.y + rect.h / 2;
  const style = { size, colour, weight: 800, align: "center", base: "middle" };
  g.fillStyle = "rgba(5,7,10,0.72)";
  g.fillRect(rect.x, y - 1.35 * size, rect.w, 2.3 * size);
  text(g, word, rect.x + rect.w / 2, y - 0.3 * size, style);
  const small = { ...style, size: Math.max(13 * ratio, 0.3 * size), weight: 600, colour: INK.white };
  text(g, line, rect.x + rect.w / 2, y + 0.55 * size, small);
  if (state === "STALE" || state === "CLOSED") {
    const thick = 4 * ratio;
    g.strokeStyle = colour;
    g.lineWidth = thick;
    g.strokeRect(rect.x + thick / 2, rect.y + thick / 2, rect.w - thick, rect.h - thick);
  }
}
