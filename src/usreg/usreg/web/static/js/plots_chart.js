// SPDX-License-Identifier: Apache-2.0
// One plot: a title with the numbers, the curves (uPlot), a line for the present moment, or words why it is empty.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { INK } from "./palette.js";
import { nearest, newest } from "./plots_data.js";

const FONT = "12px system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
const GRID = "#1b242c";
const TITLE_PX = 22; // a line of the title
const LETTER_PX = 7.8; // of the title, with a number of three digits behind each label
const LEAST_PX = 40;
const GAP_S = 0.35;
const LABELLED_PX = 72; // of a plot with numbers below

function made(tag, style, text = "") {
  const element = document.createElement(tag);
  Object.assign(element.style, style);
  element.textContent = text;
  return element;
}

/**
 * @typedef {{name: string, label: string, colour: string, unit?: string, digits?: number, scale?: "y" | "right",
 *   points?: boolean, dash?: number[]}} Curve
 * @typedef {{title: string, curves: Curve[], log?: boolean, least?: number, most?: number}} Content
 */
export class Chart {
  /** @param {HTMLElement} parent @param {Content} content */
  constructor(parent, content) {
    this.content = content;
    this.element = made("div", { position: "relative", minWidth: "0", overflow: "hidden" });
    this._title = made("div", {
      height: `${TITLE_PX}px`,
      padding: "2px 8px 0",
      fontSize: "14px",
      lineHeight: "20px",
      overflow: "hidden",
      color: INK.light,
    });
    this._plot = made("div", { position: "relative" });
    this._empty = made("div", {
      position: "absolute",
      inset: `${TITLE_PX}px 8px 0`,
      display: "flex",
      alignItems: "center",
      justifyContent: "center",
      textAlign: "center",
      color: INK.dim,
      fontSize: "14px",
    });
    this._now = made("div", {
      position: "absolute",
      top: "0",
      bottom: "0",
      width: "0",
      borderLeft: `1.5px solid ${INK.white}`,
      display: "none",
      pointerEvents: "none",
    });
    this.element.append(this._title, this._plot, this._empty);
    parent.append(this.element);
    this._data = [[], ...content.curves.map(() => [])];
    this._at = null;
    this._name();
  }

  /** Size of the whole plot, CSS pixels. */
  resize(width, height) {
    this._room = [width, height];
    const title = TITLE_PX * (this._letters() * LETTER_PX > width - 16 ? 2 : 1);
    this._title.style.height = `${title}px`;
    this._empty.style.top = `${title}px`;
    this._size = { width: Math.max(80, Math.floor(width)), height: Math.max(LEAST_PX, Math.floor(height) - title) };
    this._plot.style.height = `${this._size.height}px`;
    const labelled = this._size.height >= LABELLED_PX;
    if (labelled !== this._labelled) this._drop();
    this._labelled = labelled;
    this._uplot?.setSize(this._size);
  }

  /** Other curves from now on. */
  setCurves(curves) {
    this.content = { ...this.content, curves };
    this._drop();
    this._name();
    if (this._room) this.resize(...this._room);
  }

  _letters() {
    const { title, curves } = this.content;
    return curves.reduce((sum, { label, unit = "" }) => sum + label.length + unit.length + 6, title.length);
  }

  _drop() {
    this._uplot?.destroy();
    this._uplot = null;
  }

  /**
   * Draw.
   * @param {number[]} x ascending @param {Map<string, (number | null)[]>} columns @param {[number, number]} range of x
   * @param {string} why words for where there is nothing
   */
  show(x, columns, range, why) {
    const own = this.content.curves.map(({ name }) => columns.get(name) ?? []);
    const any = own.some((column) => newest(column) !== null);
    this._empty.textContent = any ? "" : why;
    this._plot.style.visibility = any ? "visible" : "hidden";
    this._data = [x, ...own];
    this._range = range;
    if (any) {
      this._make();
      this._uplot.setData(this._data);
    }
    this.moveTo(this._at);
  }

  /** The present moment of a replay in session time; null: the newest, and no line. */
  moveTo(at) {
    this._at = at;
    const known = at !== null && this._uplot;
    this._now.style.display = known ? "block" : "none";
    if (known) this._now.style.left = `${this._uplot.valToPos(at, "x").toFixed(1)}px`;
    this._tell();
  }

  _name() {
    this._title.replaceChildren(made("b", { marginRight: "10px" }, this.content.title));
    this._told = this.content.curves.map(({ label, colour, points }) => {
      const value = made("span", { color: INK.light });
      const pair = made("span", { display: "inline-block", whiteSpace: "nowrap", marginRight: "12px" });
      pair.append(made("span", { color: colour, marginRight: "5px" }, `${points ? "✕" : "—"} ${label}`), value);
      this._title.append(pair);
      return value;
    });
  }

  /** Numbers in the title: at the mouse, else at the present moment, else the newest. */
  _tell() {
    const hovered = this._uplot?.cursor.idx;
    const row = hovered ?? (this._at === null ? null : nearest(this._data[0], this._at));
    this.content.curves.forEach(({ unit = "", digits = 2, points }, k) => {
      const column = this._data[k + 1] ?? [];
      const value = row === null ? newest(column) : column[row];
      const words = points || !Number.isFinite(value) ? "" : `${value.toFixed(digits)}${unit}`;
      if (this._told[k].textContent !== words) this._told[k].textContent = words;
    });
  }

  _make() {
    if (this._uplot) return;
    const { curves, log, least, most } = this.content;
    const right = curves.some(({ scale }) => scale === "right");
    const y = log ? { distr: 3, range: decades } : { range: limits(least, most) };
    const axis = { stroke: INK.dim, font: FONT, grid: { stroke: GRID, width: 1 }, ticks: { show: false }, gap: 3 };
    const options = {
      ...this._size,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 }, sync: { key: "usreg" } },
      scales: { x: { time: false, range: () => this._range }, y, ...(right ? { right: { range: limits(0) } } : {}) },
      axes: [
        { ...axis, size: this._labelled ? 20 : 4, space: 60, ...(this._labelled ? {} : { values: () => [] }) },
        {
          ...axis,
          size: 46,
          space: 22,
          scale: "y",
          ...(log ? { filter: powers, grid: { ...axis.grid, filter: powers } } : {}),
        },
        ...(right
          ? [{ ...axis, size: 34, space: 22, scale: "right", side: 1, grid: { show: false }, values: ofRight }]
          : []),
      ],
      series: [{}, ...curves.map(series)],
      padding: [8, right ? 0 : 10, 0, 0],
      hooks: { setCursor: [() => this._tell()] },
    };
    this._uplot = new uPlot(options, this._data, this._plot);
    this._uplot.over.append(this._now);
  }

  dispose() {
    this._drop();
    this.element.remove();
  }
}

function series({ colour, scale = "y", points, dash }) {
  const width = 1.6;
  if (!points) return { stroke: colour, width, dash, scale, spanGaps: false, gaps: wide, points: { show: alone } };
  return {
    stroke: colour,
    scale,
    paths: () => null,
    points: { show: true, size: 7, width: 2, stroke: colour, paths: crosses },
  };
}

/** Frames of a replay that were skipped in the playing do not break a curve; a longer time without a number does. */
function wide(u, _k, _first, _last, gaps) {
  return gaps.filter(([from, to]) => u.posToVal(to, "x", true) - u.posToVal(from, "x", true) > GAP_S);
}

/** Dots only where a curve is short: of one row nothing else would be seen. */
function alone(u, _series, first, last) {
  return last - first <= 2;
}

/** Crosses instead of discs: a refused frame is told by its shape, not by colour alone. */
function crosses(u, k, first, last) {
  const path = new Path2D();
  const half = 3.5 * devicePixelRatio;
  const [xs, ys] = [u.data[0], u.data[k]];
  for (let i = first; i <= last; i += 1) {
    if (ys[i] === null || ys[i] === undefined) continue;
    const [x, y] = [u.valToPos(xs[i], "x", true), u.valToPos(ys[i], u.series[k].scale, true)];
    path.moveTo(x - half, y - half);
    path.lineTo(x + half, y + half);
    path.moveTo(x - half, y + half);
    path.lineTo(x + half, y - half);
  }
  return { stroke: path, fill: null };
}

function limits(least, most) {
  return (_, low, high) => {
    const from = Math.min(least ?? Infinity, low ?? Infinity);
    const to = Math.max(most ?? -Infinity, high ?? -Infinity);
    if (!Number.isFinite(from) || !Number.isFinite(to)) return [0, 1];
    const room = 0.08 * (to - from) || 0.5;
    return [from === least ? from : from - room, to === most ? to : to + room];
  };
}

/** Numbers of the right axis, where one of its curves has any. */
function ofRight(u, splits) {
  const any = u.series.some(({ scale }, k) => scale === "right" && newest(u.data[k]) !== null);
  return any ? splits.map((value) => `${Number(value.toFixed(3))}`) : [];
}

/** Whole powers of ten around the values, so that at least two are written. */
function decades(_, low, high) {
  const from = Math.floor(Math.log10(Math.max(low ?? 1, 0.1)));
  return [10 ** from, 10 ** Math.max(Math.ceil(Math.log10(Math.max(high ?? 10, 0.1))), from + 1)];
}

function powers(_, splits) {
  return splits.map((value) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6 ? value : null));
}
