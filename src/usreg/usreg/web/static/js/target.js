// SPDX-License-Identifier: Apache-2.0
/** Where to go: a landmark, a point of the picture or of the slices, or numbers. */

import { landmarkChoice } from "./choice.js";
import { h, say } from "./dom.js";
import { inWords } from "./geometry.js";
import { signed } from "./words.js";

export class Target {
  constructor(desk) {
    this.desk = desk;
    this.now = h("p", {});
    this.choice = landmarkChoice("Landmark as target");
    this.choice.select.addEventListener("change", () => this.named());
    this.seen = h("button", { onclick: () => this.picked("picture") }, "the picture");
    this.sliced = h("button", { onclick: () => this.picked("volume") }, "the slices");
    this.inputs = ["x", "y", "z"].map((axis) =>
      h("input", { type: "number", step: "0.1", placeholder: `${axis} mm`, "aria-label": `${axis} of the target, mm` }),
    );
    this.typed = h("button", { onclick: () => this.numbers() }, "Set");
    this.clear = h("button", { onclick: () => this.set(null) }, "Clear");
    this.element = h(
      "div",
      { class: "list" },
      this.now,
      this.choice.select,
      h("div", { class: "row" }, h("span", { class: "dim" }, "or click in"), this.seen, this.sliced),
      h("p", { class: "dim" }, "or the volume's coordinates, mm (LPS)"),
      h("div", { class: "xyz" }, this.inputs),
      h("div", { class: "row end" }, this.clear, this.typed),
    );
  }

  get note() {
    const { session } = this.desk;
    const target = session.frame?.target;
    if (target) return `${signed(target.distance_mm)} mm from the plane`;
    return session.scene?.target_ct ? "set" : "";
  }

  show() {
    const { desk } = this;
    const ct = desk.session.frame?.target?.ct ?? desk.session.scene?.target_ct;
    say(this.now, ct ? `At ${inWords(ct, desk.session.scene?.volume?.in_patient)} mm` : "No target is set.");
    this.choice.fill(desk.landmarks);
    desk.allow("target", this.choice.select, this.seen, this.sliced, this.typed, this.clear, ...this.inputs);
  }

  set(ct) {
    return this.desk.ask("target", { ct }, ct ? "Target set" : "Target cleared");
  }

  named() {
    const found = this.desk.landmarks.find(({ name }) => name === this.choice.select.value);
    if (found) this.set(found.ct);
  }

  async picked(kind) {
    const picked = await this.desk.pointer.choose(kind, "Click the target");
    if (!picked) return;
    if (picked.ct) this.set(picked.ct);
    else say(this.now, "This frame is not registered: choose in the slices.");
  }

  numbers() {
    const ct = this.inputs.map((input) => input.valueAsNumber);
    if (ct.every(Number.isFinite)) this.set(ct);
    else say(this.now, "Three numbers are needed.");
  }
}
