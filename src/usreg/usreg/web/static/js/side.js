// SPDX-License-Identifier: Apache-2.0
/** The side panel: how the stages do, and what a person can ask of them. */

import { $, h, say, toast } from "./dom.js";
import { Landmarks } from "./landmarks.js";
import { Pairs } from "./pairs.js";
import { Registration } from "./registration.js";
import { Stages } from "./stages.js";
import { Target } from "./target.js";

/** What the parts of the panel share. */
class Desk {
  constructor(session, pointer) {
    Object.assign(this, { session, pointer });
    this.own = []; // marks in the picture by part
  }

  /** Give a command and say how it went. @returns {Promise<object|null>} the reply's data; null: refused */
  async ask(name, args = {}, done = "") {
    const reply = await this.session.command(name, args);
    if (!reply.ok) toast(reply.message, "bad");
    else if (done || reply.message) toast(done || reply.message, "good");
    return reply.ok ? (reply.data ?? {}) : null;
  }

  /** Let controls of a command be used, or say why not. */
  allow(name, ...controls) {
    const why = this.session.refusal(name);
    for (const control of controls) {
      control.disabled = why !== "" || control.dataset.off === "yes";
      control.dataset.title ??= control.title;
      const title = why || control.dataset.title;
      if (control.title !== title) control.title = title;
    }
    return why;
  }

  /** Show points that a person has set in the picture. */
  mark(part, marks) {
    this.own[part] = marks;
    this.session.post({ type: "marks", marks: Object.values(this.own).flat() });
  }

  /** Points of the volume that have names. */
  get landmarks() {
    return this.session.scene?.landmarks ?? [];
  }
}

export class Side {
  constructor(session, pointer) {
    this.session = session;
    const desk = new Desk(session, pointer);
    const parts = [
      ["Stages", new Stages(desk), true],
      ["Registration", new Registration(desk), true],
      ["Landmark pairs", new Pairs(desk), false],
      ["Target", new Target(desk), false],
      ["Manual TRE", new Landmarks(desk), false],
    ];
    this.parts = parts.map(([title, part, open]) => {
      const note = h("span", { class: "note" });
      const fold = h("details", { open }, h("summary", {}, title, note), h("div", {}, part.element));
      $("side").append(fold);
      return { part, note, fold };
    });
    session.addEventListener("scene", () => this.show());
    session.addEventListener("hello", ({ detail }) => this.begin(detail.header));
  }

  /** A replay is measured, a live session is steered: what is needed stands open. */
  begin({ kind }) {
    if (this.kind === kind) return;
    this.kind = kind;
    const [, registration, , , landmarks] = this.parts;
    registration.fold.open = kind !== "replay";
    landmarks.fold.open = kind === "replay";
  }

  show() {
    for (const { part, note, fold } of this.parts) {
      fold.hidden = part.hidden ?? false;
      if (fold.hidden) continue;
      say(note, part.note ?? "");
      if (fold.open) part.show();
    }
  }
}
