// SPDX-License-Identifier: Apache-2.0
/** 3D, plots and slices. Each may fail (no WebGL): then its pane says why, and all else lives. */

import { $, h } from "./dom.js";
import { centreInCt } from "./geometry.js";

/** Load a part and make it; null and a text in its place where that fails. */
async function part(element, path, name) {
  try {
    const module = await import(path);
    return new module[name](element);
  } catch (error) {
    element.replaceChildren(h("p", { class: "empty" }, String(error.message || error)));
    element.classList.add("off");
    return null;
  }
}

export class Panes {
  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
    this.shown = { "3d": true, plots: true, slices: false };
    this.organs = [];
    this.onPick = () => {};
    this.last = null; // newest frame with its buffers
    this.ready = Promise.all([this.make3d(), this.makePlots()]);
    session.addEventListener("link", ({ detail: open }) => open && this.plots?.clear()); // perhaps another session
  }

  async make3d() {
    this.view = await part($("view3d"), "./view3d.js", "View3D");
    if (!this.view) return;
    if (this.session.scene) this.view.setScene(this.session.scene, {});
    for (const { header, buffers } of this.organs) this.view.addOrgan(header, buffers);
    if (this.last) this.view.setFrame(this.last.header, this.last.buffers);
  }

  async makePlots() {
    this.plots = await part($("plots"), "./plots.js", "Plots");
    if (this.replay) this.plots?.setReplay({ ...this.replay.header, ...this.replay.buffers }, this.replay.buffers);
  }

  get frames3d() {
    return this.view?.frames ?? 0;
  }

  hello(header, buffers) {
    this.replay = header.replay ? { header, buffers } : null;
    if (this.replay) this.plots?.setReplay({ ...header, ...buffers }, buffers);
  }

  scene(header, buffers) {
    this.view?.setScene(header, buffers);
    const volume = header.volume?.sha256;
    if (volume === this.volume) {
      for (const { header, buffers } of this.organs) this.view?.addOrgan(header, buffers);
      return; // other landmarks or another target
    }
    this.volume = volume;
    this.organs = [];
    this.slices?.close();
    this.slices = null;
    if (this.shown.slices) this.openSlices();
  }

  organ(header, buffers) {
    this.organs.push({ header, buffers });
    this.view?.addOrgan(header, buffers);
  }

  status(header) {
    this.plots?.setStatus(header);
  }

  frame(header, buffers) {
    this.last = { header, buffers };
    if (this.shown["3d"]) this.view?.setFrame(header, buffers);
    this.plots?.push(header);
    if (this.replay) this.plots?.setCursor(header.stamp_s);
    if (this.shown.slices) this.centre();
  }

  centre() {
    const centre = this.last && centreInCt(this.last.header);
    if (centre) this.slices?.setCentre(centre);
  }

  stale(old) {
    if (old === this.old) return;
    this.old = old;
    this.view?.setStale(old);
  }

  /** A pane was shown, hidden or has another size. */
  changed(pane, shown) {
    const came = shown && !this.shown[pane];
    this.shown[pane] = shown;
    if (!shown) return;
    if (pane === "3d") {
      this.view?.resize();
      if (came && this.last) this.view?.setFrame(this.last.header, this.last.buffers);
    } else if (pane === "plots") this.plots?.resize();
    else if (this.slices) this.slices.resize();
    else if (came) this.openSlices();
  }

  async openSlices() {
    const { scene } = this.session;
    if (!scene?.volume || this.opening) return;
    this.opening = true;
    const slices = await part($("slices"), "./mpr.js", "Slices");
    try {
      slices?.onPick((ct) => this.onPick(ct));
      await slices?.open(scene);
      this.slices = slices;
      this.centre();
    } catch {
      // the pane says why
    }
    this.opening = false;
  }
}
