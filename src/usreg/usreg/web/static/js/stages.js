// SPDX-License-Identifier: Apache-2.0
/** Rate, latency and drops of every stage. */

import { h, refill, shown } from "./dom.js";

const SIGNS = { OK: "●", WARN: "▲", ERROR: "✕" };
const HEADS = [
  ["stage", ""],
  ["Hz", "results a second"],
  ["ms", "latency from the stamp, median"],
  ["p99", "latency, 99th percentile of the last 10 s, ms"],
  ["drops", "since the start"],
];

export class Stages {
  constructor(desk) {
    this.session = desk.session;
    this.body = h("tbody");
    const heads = HEADS.map(([words, title]) => h("th", { title }, words));
    this.element = h("table", {}, h("thead", {}, h("tr", {}, heads)), this.body);
  }

  get note() {
    const bad = (this.session.status?.stages ?? []).filter(({ level }) => level !== "OK").length;
    return bad ? `${bad} with a warning` : "";
  }

  show() {
    const { status } = this.session;
    refill(this.body, `${status?.server_s}`, () => (status?.stages ?? []).flatMap(row));
  }
}

function row({ name, level, text, rate_hz, latency_ms, latency_p99_ms, latency_max_ms, work_ms, age_s, drops }) {
  const slowest = `work ${shown(work_ms)} ms, largest latency ${shown(latency_max_ms, 0)} ms`;
  const title = `${text}\n${slowest}, newest result ${shown(age_s, 2)} s old`.trim();
  const cells = [
    shown(rate_hz),
    shown(latency_ms, latency_ms < 10 ? 1 : 0),
    shown(latency_p99_ms, 0),
    String(drops ?? "–"),
  ];
  const first = h("td", {}, h("span", { class: "sign" }, SIGNS[level] ?? "?"), name.replaceAll("_", " "));
  const rows = [
    h(
      "tr",
      { class: level, title },
      first,
      cells.map((words) => h("td", {}, words)),
    ),
  ];
  if (level !== "OK" && text)
    rows.push(h("tr", { class: "says" }, h("td", { colspan: HEADS.length, title: text }, h("div", {}, text))));
  return rows;
}
