// SPDX-License-Identifier: Apache-2.0
/** Accept or refuse, reset, start from a hypothesis, record. */

import { confirmed, h, refill, say, shown } from "./dom.js";

export class Registration {
  constructor(desk) {
    this.desk = desk;
    this.accept = h("button", { "aria-pressed": true, onclick: () => this.toggleAccept() });
    this.reset = h("button", { class: "danger", onclick: () => this.askReset() }, "Reset");
    this.record = h("button", { onclick: () => this.toggleRecord() });
    this.path = h("p", { class: "dim" });
    this.list = h("ul", { class: "list" });
    this.none = h("p", { class: "dim" }, "No hypotheses of a start are known.");
    this.why = h("p", { class: "why" });
    this.element = h(
      "div",
      { class: "list" },
      this.why,
      h("div", { class: "row" }, this.accept, this.reset, this.record),
      this.path,
      h("p", { class: "dim" }, "Start from a hypothesis"),
      this.list,
      this.none,
    );
  }

  get status() {
    return this.desk.session.status;
  }

  get note() {
    return this.status?.recorder?.recording ? "● recording" : "";
  }

  show() {
    const { desk, status } = this;
    const readOnly = desk.session.hello?.read_only;
    say(this.why, readOnly ? "This view is read only: controls are off." : "");
    this.why.hidden = !readOnly;
    const on = status?.accept ?? true;
    say(this.accept, on ? "Accepting poses" : "Refusing poses");
    this.accept.setAttribute("aria-pressed", on);
    const recording = status?.recorder?.recording ?? false;
    say(this.record, recording ? "■ Stop recording" : "● Record");
    this.record.dataset.off = status && !status.recorder ? "yes" : "";
    this.record.dataset.title = this.record.dataset.off ? "no recorder runs in this session" : "";
    say(this.path, recording ? (status.recorder.path ?? "") : "");
    desk.allow("accept", this.accept);
    desk.allow("reset", this.reset);
    desk.allow("record", this.record);
    this.hypotheses();
  }

  hypotheses() {
    const found = this.status?.hypotheses ?? [];
    this.none.hidden = found.length > 0;
    refill(this.list, JSON.stringify(found.map(({ rank, score, reason }) => [rank, score, reason])), () =>
      found.map((one) => this.row(one)),
    );
    this.desk.allow("initialize_hypothesis", ...this.list.querySelectorAll("button"));
  }

  row({ rank, score, reason }) {
    const start = h(
      "button",
      { onclick: () => this.desk.ask("initialize_hypothesis", { rank }, `Started from hypothesis ${rank + 1}`) },
      "Start",
    );
    return h("li", {}, h("span", {}, `${rank + 1}. score ${shown(score, 2)}`, h("small", {}, reason ?? "")), start);
  }

  toggleAccept() {
    this.desk.ask("accept", { on: !(this.status?.accept ?? true) });
  }

  async askReset() {
    const tracking = this.desk.session.frame?.world_T_ct;
    if (tracking && !(await confirmed("The registration is in use. Forget it and start again?", "Reset"))) return;
    this.desk.ask("reset", {}, "The registration starts again");
  }

  toggleRecord() {
    const on = !this.status?.recorder?.recording;
    this.desk.ask("record", { on }, on ? "" : `Recorded: ${this.status.recorder.path ?? ""}`);
  }
}
