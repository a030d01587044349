// SPDX-License-Identifier: Apache-2.0
// The session in numbers: score, uncertainty, error, breathing, latency and age over session time.
import { INK } from "./palette.js";
import { Chart } from "./plots_chart.js";
import { Rolling, Whole, largest } from "./plots_data.js";

const UPDATE_MS = 250;
const KEEP_S = 60;
const LEAST_S = 10; // of the axis of a session that has just begun
const COLUMN_PX = 250; // a plot is at least that wide
const ROW_PX = 80; // and that high, title included
const STAGE_INKS = [INK.sky, INK.orange, INK.green, INK.purple, INK.yellow, INK.vermilion, INK.blue, INK.light];
const REFUSED = new Set(["REJECTED", "LOST", "NO_OVERLAP", "ERROR"]);

const CHARTS = {
  score: {
    title: "Score",
    least: 0,
    most: 1,
    curves: [
      { name: "score", label: "", colour: INK.sky },
      { name: "refused", label: "refused", colour: INK.vermilion, points: true },
    ],
  },
  sigma: {
    title: "Uncertainty 1σ",
    least: 0,
    curves: [
      { name: "sigma_mm", label: "", colour: INK.orange, unit: " mm" },
      { name: "sigma_deg", label: "", colour: INK.purple, unit: "°", scale: "right" },
    ],
  },
  tre: { title: "Error (TRE)", least: 0, curves: [{ name: "tre_mm", label: "", colour: INK.green, unit: " mm" }] },
  breathing: {
    title: "Breathing",
    least: 0,
    most: 1,
    curves: [
      { name: "phase", label: "phase", colour: INK.sky },
      { name: "depth_mm", label: "depth", colour: INK.yellow, unit: " mm", digits: 1, scale: "right" },
    ],
  },
  latency: { title: "Latency ms", log: true, curves: [] },
  age: {
    title: "Age",
    least: 0,
    curves: [
      { name: "age_ms", label: "picture", colour: INK.sky, unit: " ms", digits: 0 },
      { name: "pose_age_ms", label: "pose", colour: INK.orange, unit: " ms", digits: 0 },
    ],
  },
};
const AGES = CHARTS.age.curves.map(({ name }) => name);
const COLUMNS = Object.entries(CHARTS).flatMap(([key, { curves }]) =>
  key === "age" ? [] : curves.map(({ name }) => name),
);
const REAL_TIME = new Set(["latency", "age"]); // of a replay too: how the machine does now, not what was recorded
const SERIES = { score: "score", tre: "tre_mm", sigma: "sigma_mm", phase: "phase" }; // of hello: their columns
const TURN = 2 * Math.PI;

/** The pane with all plots. */
export class Plots {
  constructor(element) {
    this._pane = element;
    this._grid = document.createElement("div");
    Object.assign(this._grid.style, { display: "grid", width: "100%", height: "100%", overflow: "hidden auto" });
    element.append(styleSheet(), this._grid);
    this._charts = Object.fromEntries(
      Object.entries(CHARTS).map(([key, content]) => [key, new Chart(this._grid, content)]),
    );
    this._stages = new Rolling([], KEEP_S, 6);
    this._opened = performance.now();
    this._watch = new ResizeObserver(() => this.resize());
    this._watch.observe(element);
    this.clear();
  }

  /** A frame's header. */
  push(header) {
    const refused = REFUSED.has(header.status);
    const score = Number.isFinite(header.score) ? header.score : 0;
    const row = {
      score: header.score,
      refused: refused ? score : null,
      sigma_mm: largest(header.sigma_mm),
      sigma_deg: largest(header.sigma_deg),
      tre_mm: header.tre_mm,
      phase: header.breathing ? header.breathing.phase / TURN : null,
      depth_mm: header.breathing?.depth_mm,
    };
    if (this._replay) {
      this._rows.put(header.index, row);
      this.setCursor(header.stamp_s);
    } else {
      if (this._begin_s === null || header.stamp_s - this._begin_s < (this._rows.last ?? 0))
        this._restart(header.stamp_s);
      this._rows.push(header.stamp_s - this._begin_s, row);
    }
    const ms = (seconds) => (Number.isFinite(seconds) ? 1000 * seconds : null);
    if (!header.paused) this._ages.push(this._now(), { age_ms: ms(header.age_s), pose_age_ms: ms(header.pose_age_s) });
    this._ask();
  }

  /** A status: the latency of each stage. */
  setStatus({ stages }) {
    const now = this._now();
    const rows = (stages ?? []).filter(({ latency_ms }) => latency_ms > 0);
    if (now === null || !rows.length) return;
    const before = this._stages.columns.size;
    rows.forEach(({ name }) => this._stages.add(name));
    if (this._stages.columns.size !== before)
      this._charts.latency.setCurves([...this._stages.columns.keys()].map(stageCurve));
    this._stages.push(now, Object.fromEntries(rows.map(({ name, latency_ms }) => [name, latency_ms])));
    this._ask();
  }

  /** Session time of a live session; of a replay, which jumps, the time since the page was opened. */
  _now() {
    return this._replay ? (performance.now() - this._opened) / 1000 : this._rows.last;
  }

  /** A recording's hello, with its buffers: the whole session; called again when more of it is known. */
  setReplay(hello, buffers = hello) {
    const { begin_s, end_s, events, has_truth } = hello.replay;
    const stamps = buffers.stamps ?? [];
    if (!this._replay) {
      this._ages.clear();
      this._stages.clear();
    }
    if (!this._replay || this._rows.x.length !== stamps.length || this._rows.begin_s !== begin_s) {
      this._rows = new Whole(stamps, begin_s, COLUMNS);
    }
    this._replay = { begin_s, length_s: Math.max(end_s - begin_s, 0.1), hasTruth: has_truth };
    for (const [name, column] of Object.entries(SERIES)) {
      const values = buffers[`series_${name}`];
      if (values) this._rows.fill(column, name === "phase" ? values.map((phase) => phase / TURN) : values);
    }
    for (const { index, kind } of events ?? []) {
      if (kind === "rejected" || kind === "lost")
        this._rows.put(index, { refused: this._rows.columns.get("score")[index] ?? 0 });
    }
    this._ask();
  }

  /** The present moment of a replay. */
  setCursor(stamp_s) {
    if (!this._replay) return;
    this._at = stamp_s - this._replay.begin_s;
    for (const [key, chart] of Object.entries(this._charts)) if (!REAL_TIME.has(key)) chart.moveTo(this._at);
  }

  /** Forget everything: another session. */
  clear() {
    this._replay = null;
    this._at = null;
    for (const chart of Object.values(this._charts)) chart.moveTo(null);
    this._restart(null);
    this._ask();
  }

  /** To be called when the pane's size has changed. */
  resize() {
    const { clientWidth: width, clientHeight: height } = this._pane;
    if (!width || !height) return;
    const charts = Object.values(this._charts);
    const across = [6, 3, 2, 1].find((count) => width / count >= COLUMN_PX) ?? 1;
    const rows = Math.ceil(charts.length / across);
    const row = Math.max(ROW_PX, Math.floor(height / rows));
    Object.assign(this._grid.style, {
      gridTemplateColumns: `repeat(${across}, minmax(0, 1fr))`,
      gridAutoRows: `${row}px`,
    });
    for (const chart of charts) chart.resize(width / across, row);
    this._show();
  }

  dispose() {
    clearTimeout(this._timer);
    this._watch.disconnect();
    Object.values(this._charts).forEach((chart) => chart.dispose());
    this._grid.remove();
  }

  _restart(begin_s) {
    this._begin_s = begin_s;
    this._rows = new Rolling(COLUMNS, KEEP_S, 2);
    this._ages = new Rolling(AGES, KEEP_S, 2);
    this._stages.clear();
  }

  /** Draw soon, and not more often than a person can read. */
  _ask() {
    this._timer ??= setTimeout(() => {
      this._timer = null;
      this._show();
    }, UPDATE_MS);
  }

  _show() {
    if (!this._pane.clientWidth || document.hidden) return;
    const { x, columns } = this._rows;
    const now = this._now() ?? 0;
    const recent = [Math.max(0, now - KEEP_S), Math.max(now, LEAST_S)];
    const range = this._replay ? [0, this._replay.length_s] : recent;
    for (const [key, chart] of Object.entries(this._charts)) {
      const why = reason(key, this._replay);
      const rows = { latency: this._stages, age: this._ages }[key];
      if (rows) chart.show(rows.x, rows.columns, recent, why);
      else chart.show(x, columns, range, why);
    }
  }
}

/** Why a plot has nothing to show. */
function reason(key, replay) {
  if (key === "tre")
    return replay?.hasTruth ? "Known as soon as a pose is." : "No truth in this session, so no error is known.";
  if (key === "latency") return "No stage has told its latency yet.";
  if (key === "age") return "No picture yet.";
  if (key === "breathing") return "No breathing in the filter's model, or not found yet.";
  return key === "sigma" ? "No smoothed pose yet." : "No estimate yet.";
}

function stageCurve(name, k) {
  const label = name
    .replace(/^us_/, "")
    .replace("pose_smoothing", "smoothing")
    .replace("_tracking", "")
    .replace("web_view", "view");
  return { name, label, colour: STAGE_INKS[k % STAGE_INKS.length], digits: 0 };
}

function styleSheet() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("../vendor/uplot/uPlot.min.css", import.meta.url).href;
  return link;
}
