// SPDX-License-Identifier: Apache-2.0
/** What a person does on the 2D picture: look (readout), drag (window and level), click (choose a point). */

import { $, say, toast } from "./dom.js";

const CLICK_PX = 5;
const GLANCE_MS = 4000;

export class Pointer {
  constructor(session, tools, layout, panes) {
    Object.assign(this, { session, tools, layout, panes });
    this.wanted = null; // {kind: "picture" | "volume", resolve}
    this.down = null;
    const canvas = $("picture");
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerleave", () => this.look(null));
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => (this.down = null));
    canvas.addEventListener("dblclick", () => this.whole());
    panes.onPick = (ct) => this.wanted?.kind === "volume" && this.finish({ ct });
  }

  at(event) {
    const box = $("picture").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  look(at) {
    this.session.post({ type: "pointer", at });
  }

  /** A tap shows what lies there for a while: a finger does not hover. */
  glance(at) {
    this.look(at);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(null), GLANCE_MS);
  }

  async press(event) {
    if (event.button !== 0) return;
    $("picture").setPointerCapture(event.pointerId);
    const at = this.at(event);
    this.down = { at, last: at, moved: false, pane: null };
    // the frame that was under the finger, not the one that is there when it lifts
    this.down.picked = this.session.call("pick", { at });
    const picked = await this.down.picked;
    if (this.down) this.down.pane = picked?.pane === "us" ? "us" : "slice";
  }

  move(event) {
    const at = this.at(event);
    if (event.pointerType === "mouse") {
      clearTimeout(this.timer);
      this.look(at);
    }
    const { down } = this;
    if (!down) return;
    if (Math.hypot(at[0] - down.at[0], at[1] - down.at[1]) > CLICK_PX) down.moved = true;
    if (down.moved && down.pane && !this.wanted) this.tools.drag(down.pane, at[0] - down.last[0], at[1] - down.last[1]);
    down.last = at;
  }

  async release() {
    const { down } = this;
    this.down = null;
    if (!down || down.moved) return;
    if (this.wanted?.kind !== "picture") return this.glance(down.at);
    const picked = await down.picked;
    if (!picked?.px) return toast("Click inside of the ultrasound picture.");
    if (!picked.world) return toast("This frame has no pose: the arm is not tracked.", "bad");
    this.finish(picked);
  }

  async whole() {
    const whole = [255, 127.5];
    this.tools.set({ windows: { us: whole, slice: whole } });
  }

  /**
   * Let a person choose a point.
   * @param {"picture"|"volume"} kind
   * @returns {Promise<object|null>} in the picture {px, world, ct, ...}, in the volume {ct}; null: given up
   */
  choose(kind, prompt) {
    this.finish(null);
    if (kind === "volume" && this.layout.number !== 4) this.layout.use(4);
    say($("hint"), `${prompt} · Esc gives up`);
    $("hint").hidden = false;
    this.pane = $(kind === "volume" ? "pane-slices" : "pane-2d");
    this.pane.classList.add("picking");
    this.pane.append($("hint"));
    return new Promise((resolve) => (this.wanted = { kind, resolve }));
  }

  finish(value) {
    const { wanted } = this;
    if (!wanted) return false;
    this.wanted = null;
    $("hint").hidden = true;
    this.pane.classList.remove("picking");
    wanted.resolve(value);
    return true;
  }
}
