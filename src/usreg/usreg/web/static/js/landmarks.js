// SPDX-License-Identifier: Apache-2.0
/** Manual TRE of a replay: a landmark of the volume, clicked where it is seen in the ultrasound. */

import { h, refill, say, shown } from "./dom.js";
import { landmarkChoice } from "./choice.js";

export class Landmarks {
  constructor(desk) {
    this.desk = desk;
    this.choice = landmarkChoice("Landmark of the volume");
    this.click = h("button", { class: "main", onclick: () => this.measure() }, "Click it in the ultrasound");
    this.sliced = h("button", { onclick: () => this.unnamed() }, "Choose in the slices");
    this.body = h("tbody");
    this.mean = h("p", {});
    this.clear = h("button", { onclick: () => desk.ask("clear_landmarks", {}, "Cleared") }, "Clear");
    const heads = ["landmark", "error, mm"].map((words) => h("th", {}, words));
    this.table = h("table", {}, h("thead", {}, h("tr", {}, heads)), this.body);
    this.element = h(
      "div",
      { class: "list" },
      h(
        "p",
        { class: "dim" },
        "The error is the distance between the click and where the shown pose puts the landmark. A click holds the replay.",
      ),
      this.choice.select,
      h("div", { class: "row" }, this.click, this.sliced),
      this.table,
      h("div", { class: "row" }, h("span", { class: "grow" }, this.mean), this.clear),
    );
  }

  get hidden() {
    return !this.desk.session.hello?.replay;
  }

  get measured() {
    return this.desk.session.status?.landmark_pairs ?? [];
  }

  get note() {
    return this.measured.length ? String(this.measured.length) : "";
  }

  show() {
    const { desk, measured } = this;
    this.choice.fill(desk.landmarks);
    this.click.dataset.off = this.choice.select.value ? "" : "yes";
    this.click.dataset.title = this.choice.select.value ? "" : "choose a landmark first";
    desk.allow("landmark", this.choice.select, this.click, this.sliced);
    this.clear.dataset.off = measured.length ? "" : "yes";
    desk.allow("clear_landmarks", this.clear);
    this.table.hidden = !measured.length;
    const errors = measured.map(({ error_mm }) => error_mm).filter((e) => e !== null);
    const mean = errors.reduce((sum, e) => sum + e, 0) / errors.length;
    say(this.mean, errors.length ? `mean ${shown(mean, 1)} mm, largest ${shown(Math.max(...errors), 1)} mm` : "");
    const rows = () =>
      measured.map(({ name, error_mm }) =>
        h("tr", {}, h("td", {}, (name || "point").replaceAll("_", " ")), h("td", {}, shown(error_mm, 1))),
      );
    refill(this.body, JSON.stringify(measured), () => {
      desk.mark(
        "landmarks",
        measured.map(({ name, world }) => ({ label: name.replaceAll("_", " "), world })),
      );
      return rows();
    });
  }

  async measure() {
    const found = this.desk.landmarks.find(({ name }) => name === this.choice.select.value);
    if (!found) return this.choice.select.focus();
    await this.at(found.ct, found.name);
  }

  async unnamed() {
    const chosen = await this.desk.pointer.choose("volume", "Click a point in the slices");
    if (chosen) await this.at(chosen.ct, "");
  }

  async at(ct, name) {
    const { session } = this.desk;
    // the error is told for the frame that is shown: it must not move on
    if (session.seen.state !== "PAUSED" && (await this.desk.ask("pause", { on: true })) === null) return;
    const picked = await this.desk.pointer.choose(
      "picture",
      `Click ${name.replaceAll("_", " ") || "the same point"} in the ultrasound`,
    );
    if (picked) await this.desk.ask("landmark", { ...(name ? { name } : {}), world: picked.world, ct });
  }
}
