// SPDX-License-Identifier: Apache-2.0
// Numbers over session time, as uPlot takes them: an ascending x and columns in which null is a gap.

/** A number that can be drawn, or null. */
export function known(value) {
  return Number.isFinite(value) ? value : null;
}

/** Largest finite number of a list, or null. */
export function largest(values) {
  const finite = (values ?? []).filter(Number.isFinite);
  return finite.length ? Math.max(...finite) : null;
}

/** The newest part of a live session: what lies further back than `keep_s` goes. */
export class Rolling {
  /** @param {number} gap_s longer than that without a row, and a curve is broken there */
  constructor(names, keep_s, gap_s) {
    this.keep_s = keep_s;
    this.gap_s = gap_s;
    this.x = [];
    this.columns = new Map(names.map((name) => [name, []]));
  }

  get last() {
    return this.x.length ? this.x.at(-1) : null;
  }

  /** Another column, empty so far. */
  add(name) {
    if (!this.columns.has(name)) this.columns.set(name, new Array(this.x.length).fill(null));
  }

  /** A row {name: number}; one of the same time replaces the last one, an earlier one begins anew. */
  push(x, row) {
    if (this.last !== null && x < this.last) this.clear();
    if (this.last !== null && x - this.last > this.gap_s) this._break((x + this.last) / 2);
    const again = x === this.last;
    if (!again) this.x.push(x);
    for (const [name, column] of this.columns) {
      const value = known(row[name]);
      if (again) column[column.length - 1] = value ?? column.at(-1);
      else column.push(value);
    }
    this._forget(x - this.keep_s);
  }

  clear() {
    this.x = [];
    for (const name of this.columns.keys()) this.columns.set(name, []);
  }

  _break(x) {
    this.x.push(x);
    for (const column of this.columns.values()) column.push(null);
  }

  /** Old rows go in bundles, not one by one. */
  _forget(before) {
    if (this.x[0] >= before - 0.25 * this.keep_s && this.x.length < 20000) return;
    const from = Math.max(
      this.x.findIndex((x) => x >= before),
      this.x.length - 15000,
      0,
    );
    this.x.splice(0, from);
    for (const column of this.columns.values()) column.splice(0, from);
  }
}

/** A recording: one row a frame, filled by what is known of it and by what is played. */
export class Whole {
  constructor(stamps, begin_s, names) {
    this.begin_s = begin_s;
    this.x = Array.from(stamps, (stamp) => stamp - begin_s);
    this.columns = new Map(names.map((name) => [name, new Array(this.x.length).fill(null)]));
  }

  /** Everything that is known of a column; what is not keeps what was played. */
  fill(name, values) {
    const column = this.columns.get(name);
    values.forEach((value, k) => {
      if (k < column.length && Number.isFinite(value)) column[k] = value;
    });
  }

  /** The row of frame `index`, as it was played. */
  put(index, row) {
    if (!(index >= 0 && index < this.x.length)) return;
    for (const [name, column] of this.columns) column[index] = known(row[name]) ?? column[index];
  }
}

/** Newest number of a column, or null. */
export function newest(column) {
  for (let k = column.length - 1; k >= 0; k -= 1) if (column[k] !== null) return column[k];
  return null;
}

/** Row of an ascending list whose number is nearest to x; -1 for an empty list. */
export function nearest(list, x) {
  if (!list.length) return -1;
  let low = 0;
  let high = list.length - 1;
  while (high - low > 1) {
    const between = (low + high) >> 1;
    if (list[between] <= x) low = between;
    else high = between;
  }
  return Math.abs(list[low] - x) <= Math.abs(list[high] - x) ? low : high;
}
