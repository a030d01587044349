// SPDX-License-Identifier: Apache-2.0
/** How the 2D picture is mixed: sliders and switches above it, and windowing by dragging on it. */

import { $, h, say } from "./dom.js";

const WHOLE = [255, 127.5];
const BOUNDS = [
  [2, 510],
  [-64, 320],
]; // of width and level

export class Tools {
  /**
   * @param {object} settings shared with the worker
   * @param {() => void} changed
   * @param {import("./layout.js").Layout} layout
   */
  constructor(settings, changed, layout) {
    Object.assign(this, { settings, changed, layout });
    this.mode = this.switch("How frame and slice are mixed", { alpha: "Blend", checkerboard: "Checker" }, (mode) =>
      this.set({ mode }),
    );
    this.share = this.slider("Share of the slice", 0, 1, 0.01, (opacity) => this.set({ opacity }));
    this.tile = this.slider("Edge of the fields, mm", 3, 40, 1, (tile_mm) => this.set({ tile_mm }));
    this.contours = this.toggle("Contours", "Outlines of labels (o)", () => this.set({ contours: !settings.contours }));
    this.names = this.toggle("Names", "Names of the labels", () => this.set({ names: !settings.names }));
    this.names.classList.add("spare");
    this.panes = this.switch("Which picture", { all: "All", us: "US", slice: "Slice", fused: "Fused" }, (pane) =>
      layout.choose(pane),
    );
    this.levels = this.windowing();
    this.open = this.toggle("W/L", "Window and level; or drag on a picture", () => this.showLevels(this.levels.hidden));
    $("tools").append(
      this.panes.element,
      this.mode.element,
      this.share.element,
      this.tile.element,
      this.contours,
      this.names,
      this.open,
      this.levels,
    );
    layout.onChange.push(() => this.show());
    this.show();
  }

  set(part) {
    Object.assign(this.settings, part);
    this.show();
    this.changed();
  }

  show() {
    const { settings, layout } = this;
    this.panes.element.hidden = layout.number !== 3;
    this.panes.show(layout.narrow && layout.choice === "all" ? "fused" : layout.choice);
    this.mode.show(settings.mode);
    this.share.element.hidden = settings.mode !== "alpha";
    this.tile.element.hidden = settings.mode === "alpha";
    this.share.show(settings.opacity, `${Math.round(100 * settings.opacity)} %`);
    this.tile.show(settings.tile_mm, `${settings.tile_mm} mm`);
    this.contours.setAttribute("aria-pressed", settings.contours);
    this.names.setAttribute("aria-pressed", settings.names);
    for (const { pane, part, slider } of this.levelSliders) {
      const value = settings.windows[pane][part];
      slider.show(value, `${"WL"[part]} ${Math.round(value)}`);
    }
  }

  showLevels(open) {
    this.levels.hidden = !open;
    this.open.setAttribute("aria-pressed", open);
  }

  /** Width and level of "us" or "slice" by a drag, pixels, as radiologists do it: right wider, down darker. */
  drag(pane, dx, dy) {
    const [width, level] = this.settings.windows[pane];
    this.setWindow(pane, [width + dx, level + 0.5 * dy]);
  }

  setWindow(pane, wanted) {
    const held = wanted.map((value, i) => Math.min(BOUNDS[i][1], Math.max(BOUNDS[i][0], value)));
    this.set({ windows: { ...this.settings.windows, [pane]: held } });
  }

  windowing() {
    this.levelSliders = [];
    const rows = [
      ["us", "Ultrasound"],
      ["slice", "Slice"],
    ].map(([pane, caption]) => {
      const sliders = ["window", "level"].map((name, part) => {
        const slider = this.slider(`${name} of the ${caption.toLowerCase()}`, ...BOUNDS[part], 1, (value) => {
          const next = [...this.settings.windows[pane]];
          next[part] = value;
          this.setWindow(pane, next);
        });
        this.levelSliders.push({ pane, part, slider });
        return slider.element;
      });
      const whole = h(
        "button",
        { title: `Whole range of the ${caption.toLowerCase()}`, onclick: () => this.setWindow(pane, WHOLE) },
        "Reset",
      );
      return h("div", { class: "level" }, h("span", {}, caption), ...sliders, whole);
    });
    return h("div", { id: "levels", hidden: true }, rows);
  }

  slider(title, min, max, step, set) {
    const input = h("input", {
      type: "range",
      min,
      max,
      step,
      title,
      "aria-label": title,
      oninput: () => set(Number(input.value)),
    });
    const output = h("output", {});
    const show = (value, words) => {
      input.value = value;
      say(output, words);
    };
    return { element: h("label", { class: "slider" }, input, output), show };
  }

  switch(title, choices, set) {
    const buttons = Object.entries(choices).map(([value, words]) =>
      h("button", { value, onclick: () => set(value) }, words),
    );
    const show = (value) => buttons.forEach((button) => button.setAttribute("aria-pressed", button.value === value));
    return { element: h("div", { class: "switch", role: "group", "aria-label": title }, buttons), show };
  }

  toggle(words, title, set) {
    return h("button", { class: "toggle", title, "aria-pressed": false, onclick: set }, words);
  }
}
