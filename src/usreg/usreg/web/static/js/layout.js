// SPDX-License-Identifier: Apache-2.0
/** Which panes stand where, and who must know when a size changes. */

import { $ } from "./dom.js";

/** Panes of each layout; what is not in it is hidden. */
const LAYOUTS = { 1: ["3d", "2d", "plots"], 2: ["3d", "2d", "plots"], 3: ["2d"], 4: ["slices", "2d"] };
const NARROW = "(max-width: 700px)";
const MAX_RATIO = 2; // finer pixels cost time and show nothing

export class Layout {
  /** @param {(pane: string, shown: boolean) => void} onPane a pane was shown, hidden or has another size
   *  @param {(size: object) => void} onCanvas size of the 2D canvas */
  constructor(onPane, onCanvas) {
    this.number = 1;
    this.choice = "all"; // panes of the 2D picture in layout 3
    this.onPane = onPane;
    this.onChange = [];
    const observer = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const pane = target.parentElement.id.slice("pane-".length);
        if (pane === "2d") onCanvas(this.size());
        else onPane(pane, this.shows(pane));
      }
    });
    for (const body of document.querySelectorAll(".pane > .body")) observer.observe(body);
    matchMedia(NARROW).addEventListener("change", () => this.use(this.number));
  }

  get narrow() {
    return matchMedia(NARROW).matches;
  }

  shows(pane) {
    return LAYOUTS[this.number].includes(pane);
  }

  /** Panes of the 2D picture. */
  get pictures() {
    if (this.number !== 3) return ["fused"];
    if (this.choice !== "all") return [this.choice];
    return this.narrow ? ["fused"] : ["us", "slice", "fused"];
  }

  use(number) {
    this.number = number;
    document.body.dataset.layout = number;
    for (const pane of ["3d", "2d", "plots", "slices"]) {
      $(`pane-${pane}`).hidden = !this.shows(pane);
      if (pane !== "2d") this.onPane(pane, this.shows(pane));
    }
    for (const told of this.onChange) told(this);
  }

  choose(choice) {
    this.choice = choice;
    this.use(this.number);
  }

  size() {
    const { width, height } = $("box-2d").getBoundingClientRect();
    return { width, height, ratio: Math.min(MAX_RATIO, devicePixelRatio || 1) };
  }
}
