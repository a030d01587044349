// SPDX-License-Identifier: Apache-2.0
/** Start from landmark pairs: a point in the ultrasound, and the same point in the volume. */

import { h, refill, say, shown } from "./dom.js";
import { inWords } from "./geometry.js";
import { landmarkChoice } from "./choice.js";

const FEWEST = 3;
const MOST = 20;

export class Pairs {
  constructor(desk) {
    this.desk = desk;
    this.pairs = []; // {world, ct | null, name}
    this.told = h(
      "p",
      { class: "dim" },
      `Find a point in the ultrasound, then the same point in the volume; ${FEWEST} pairs or more, well apart.`,
    );
    this.why = h("p", { class: "why", hidden: true });
    this.add = h("button", { onclick: () => this.pickWorld() }, "1. Click in the ultrasound");
    this.choice = landmarkChoice("The same point in the volume");
    this.choice.select.addEventListener("change", () => this.named());
    this.sliced = h("button", { onclick: () => this.pickCt() }, "In the slices");
    this.second = h(
      "div",
      { class: "list" },
      h("p", { class: "dim" }, "2. The same point in the volume"),
      this.choice.select,
      this.sliced,
    );
    this.list = h("ol", { class: "list" });
    this.send = h("button", { class: "main", onclick: () => this.start() }, "Start from these pairs");
    this.clear = h("button", { onclick: () => this.use([]) }, "Clear");
    this.element = h(
      "div",
      { class: "list" },
      this.told,
      this.why,
      this.add,
      this.second,
      this.list,
      h("div", { class: "row end" }, this.clear, this.send),
    );
    this.use([]);
  }

  get note() {
    return this.pairs.length ? `${this.pairs.filter(({ ct }) => ct).length} of ${FEWEST}` : "";
  }

  get open() {
    return this.pairs.find(({ ct }) => !ct);
  }

  show() {
    const { desk, pairs } = this;
    this.choice.fill(desk.landmarks);
    this.second.hidden = !this.open;
    this.add.dataset.off = this.open || pairs.length >= MOST ? "yes" : "";
    this.send.dataset.off = this.open || pairs.length < FEWEST ? "yes" : "";
    this.clear.dataset.off = pairs.length ? "" : "yes";
    const why = desk.allow("initialize_pairs", this.add, this.send, this.clear, this.choice.select, this.sliced);
    say(this.why, why && `Off: ${why}.`);
    this.why.hidden = !why;
    refill(this.list, JSON.stringify(pairs), () => pairs.map((pair, i) => this.row(pair, i)));
  }

  row({ name, ct }, i) {
    const remove = h(
      "button",
      { "aria-label": `Remove pair ${i + 1}`, onclick: () => this.use(this.pairs.filter((_, j) => j !== i)) },
      "×",
    );
    const words = ct ? inWords(ct, this.desk.session.scene?.volume?.in_patient) : "volume point missing";
    return h(
      "li",
      { class: ct ? "" : "open" },
      h("span", {}, `${i + 1}. ${name || "point"}`, h("small", {}, words)),
      remove,
    );
  }

  use(pairs) {
    this.pairs = pairs;
    this.desk.mark(
      "pairs",
      pairs.map(({ world }, i) => ({ label: String(i + 1), world })),
    );
    this.show();
  }

  async pickWorld() {
    const picked = await this.desk.pointer.choose(
      "picture",
      `Point ${this.pairs.length + 1}: click it in the ultrasound`,
    );
    if (picked) this.use([...this.pairs, { world: picked.world, ct: null, name: "" }]);
  }

  complete(ct, name) {
    this.use(this.pairs.map((pair) => (pair === this.open ? { ...pair, ct, name } : pair)));
    this.choice.select.value = "";
  }

  named() {
    const found = this.desk.landmarks.find(({ name }) => name === this.choice.select.value);
    if (found && this.open) this.complete(found.ct, found.name.replaceAll("_", " "));
  }

  async pickCt() {
    const picked = await this.desk.pointer.choose("volume", "Click the same point in the slices");
    if (picked && this.open) this.complete(picked.ct, "");
  }

  async start() {
    const data = await this.desk.ask("initialize_pairs", { pairs: this.pairs.map(({ world, ct }) => ({ world, ct })) });
    if (data)
      say(
        this.told,
        data.residual_mm === undefined
          ? "Started from these pairs."
          : `Started; the pairs fit to ${shown(data.residual_mm, 1)} mm.`,
      );
  }
}
