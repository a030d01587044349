// SPDX-License-Identifier: Apache-2.0
/** The bar at the top: what a person must know without looking for it. */

import { $, h, say, shown } from "./dom.js";

const GOOD = ["good", "✓"];
const DOUBT = ["doubt", "▲"];
const BAD = ["bad", "✕"];
const CALM = ["calm", "●"];
const SIGNS = {
  ACCEPTED: GOOD,
  REJECTED: DOUBT,
  NO_OVERLAP: DOUBT,
  NOT_TRACKED: DOUBT,
  NO_VOLUME: CALM,
  WAITING: CALM,
};

const FIGURES = [
  ["age", "age", "Age of the picture by the server's clock"],
  ["rate", "rate", "Frames a second of the source, and drawn here"],
  ["score", "score", "Similarity of frame and slice"],
  ["probability", "P < 5 mm", "Probability that the target registration error is below 5 mm"],
  ["sigma", "sigma", "Standard deviation of the shown pose (mean of the axes)"],
  ["pose", "pose age", "How much older than the picture the newest accepted estimate is"],
  ["tre", "TRE", "Target registration error of the shown pose against the truth of the recording"],
  ["clients", "viewers", "Pages that watch this session"],
];

export class Bar {
  constructor() {
    this.figures = {};
    for (const [id, caption, title] of FIGURES) {
      this.figures[id] = h("dd", {}, "–");
      const cell = h("div", { class: `figure ${id}`, title }, h("dt", {}, caption), this.figures[id]);
      $("figures").append(cell);
    }
    this.cells = { age: $("figures").querySelector(".age"), tre: $("figures").querySelector(".tre") };
    this.marks = h("span", { id: "chips" });
    $("session").append(this.marks);
    this.drawn = { at: 0, frames: 0, rate: NaN };
  }

  hello(hello) {
    const kind = hello.kind === "replay" ? "replay" : "live";
    say($("session-title"), `${hello.title} · ${kind}${hello.read_only ? " · read only" : ""}`);
    document.title = `${hello.title} · usreg`;
    this.truth = hello.replay?.has_truth ?? false;
  }

  /** @param {object} seen the worker's report @param {object|null} status newest message of the stages */
  show(seen, status) {
    const frame = seen.told;
    const [kind, sign, word, why] = headline(seen, frame);
    document.body.dataset.state = seen.state;
    $("word").className = kind;
    say($("word-sign"), sign);
    say($("word-big"), word);
    say($("word-why"), why);
    $("word-why").title = why;
    this.chips(status);
    this.numbers(seen, frame, status);
  }

  chips(status) {
    const recording = status?.recorder?.recording ? "● REC" : "";
    const refusing = status && !status.accept ? "NOT ACCEPTING" : "";
    say(this.marks, `${recording}  ${refusing}`.trim());
  }

  numbers(seen, frame, status) {
    const put = (id, words) => say(this.figures[id], words);
    const now = performance.now();
    if (now - this.drawn.at > 1000) {
      this.drawn = {
        at: now,
        frames: seen.frames2d,
        rate: (1000 * (seen.frames2d - this.drawn.frames)) / (now - this.drawn.at),
      };
    }
    put("age", seen.state === "PAUSED" ? "paused" : age(seen.ageMs));
    const error = `± ${shown(seen.clock.error_ms, 1)} ms (half a round trip)`;
    this.cells.age.title = `Age of the picture by the server's clock, ${error}; stale from ${shown(seen.limitMs, 0)} ms`;
    put("rate", frame?.period_s ? `${shown(1 / frame.period_s, 1)} Hz` : "–");
    this.figures.rate.title = `drawn here: ${shown(this.drawn.rate, 1)} a second`;
    put("score", shown(frame?.score, 2));
    put("probability", frame?.probability == null ? "–" : `${Math.round(100 * frame.probability)} %`);
    const sigma = frame?.sigma_mm;
    put("sigma", sigma ? shown(Math.sqrt(sigma.reduce((sum, s) => sum + s * s, 0) / 3), 1, " mm") : "–");
    put("pose", shown(frame?.pose_age_s, 2, " s"));
    this.cells.tre.hidden = !this.truth && frame?.tre_mm == null;
    put("tre", shown(frame?.tre_mm, 1, " mm"));
    put("clients", status?.clients === undefined ? "–" : String(status.clients));
  }
}

function age(ms) {
  if (!Number.isFinite(ms)) return "–";
  return ms < 1000 ? `${Math.round(ms / 10) * 10} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Class, sign, word and reason of what matters most. */
function headline(seen, frame) {
  const seconds = (seen.ageMs / 1000).toFixed(1);
  if (seen.state === "CLOSED") return [...BAD, "DISCONNECTED", seen.why || "connecting again …"];
  if (!frame || seen.state === "WAITING") return [...CALM, "WAITING", "for the first picture"];
  if (seen.state === "STALE") return [...BAD, "STALE", `the picture is ${seconds} s old`];
  const words = frame.status.replaceAll("_", " ");
  const why = frame.reason || frame.note || "";
  if (seen.state === "PAUSED") return ["still", "❚❚", "PAUSED", `${words}${why ? `: ${why}` : ""}`];
  return [...(SIGNS[frame.status] ?? BAD), words, why || (frame.system && `by ${frame.system}`)];
}
