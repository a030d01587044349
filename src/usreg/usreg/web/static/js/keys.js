// SPDX-License-Identifier: Apache-2.0
/** Keyboard, the rail of buttons that do the same, and the help. */

import { $, h } from "./dom.js";

const ICONS = {
  1: "M3 4h8v9H3zM13 4h8v9h-8zM3 15h18v5H3z",
  2: "M3 4h12v16H3zM17 4h4v16h-4z",
  3: "M3 4h5v7H3zM3 13h5v7H3zM10 4h11v16H10z",
  4: "M3 4h5v7H3zM9 4h4v7H9zM3 13h5v7H3zM15 4h6v16h-6z",
  pause: "M8 5v14M16 5v14",
  play: "M7 4l12 8-12 8z",
  camera: "M3 8h4l2-3h6l2 3h4v11H3zM12 10a3.500 3.500 0 1 0 .1 0z",
  panel: "M3 4h18v16H3zM15 4v16",
  help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17.500v.5",
};
const LAYOUTS = {
  1: "3D, fused picture and plots",
  2: "3D large",
  3: "Ultrasound, slice and fused picture",
  4: "Slices of the volume and fused picture",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(name, title, act) {
  return h("button", { title, "aria-label": title, onclick: act }, icon(name));
}

export class Keys {
  constructor(parts) {
    Object.assign(this, parts);
    this.layouts = Object.entries(LAYOUTS).map(([n, words]) =>
      button(n, `${words} (${n})`, () => this.layout.use(Number(n))),
    );
    this.pause = button("pause", "Pause (space)", () => this.timeline.toggle());
    const snap = button("camera", "Snapshot with the frame's data (s)", () => this.snapshot());
    const panel = button("panel", "Side panel (p)", () => document.body.classList.toggle("drawer"));
    const help = button("help", "Help (?)", () => this.help());
    $("rail").append(...this.layouts, h("hr"), this.pause, snap, h("span", { class: "grow" }), panel, help);
    $("help").append(...helpText());
    this.layout.onChange.push(() => this.show());
    document.addEventListener("keydown", (event) => this.key(event));
    this.show();
  }

  show() {
    this.layouts.forEach((element, i) => element.setAttribute("aria-pressed", i + 1 === this.layout.number));
    const why = this.session.refusal("pause");
    this.pause.disabled = why !== "";
    const still = this.timeline.still;
    const title = why ? `Pause: ${why}` : still ? "Play (space)" : "Pause (space)";
    if (this.pause.title === title) return;
    this.pause.title = title;
    this.pause.setAttribute("aria-label", title);
    this.pause.replaceChildren(icon(still ? "play" : "pause"));
  }

  help() {
    if (!$("help").open) $("help").showModal();
  }

  key(event) {
    const own = event.target.closest?.("input, select, textarea, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      this.pointer.finish(null);
      return;
    }
    if (own && !(own.type === "range" && !event.key.startsWith("Arrow"))) return;
    const act =
      {
        " ": () => this.timeline.toggle(),
        s: () => this.snapshot(),
        "?": () => this.help(),
        p: () => document.body.classList.toggle("drawer"),
        o: () => this.tools.contours.click(),
        c: () => this.tools.set({ mode: this.tools.settings.mode === "alpha" ? "checkerboard" : "alpha" }),
        ArrowLeft: () => this.timeline.step(-1),
        ArrowRight: () => this.timeline.step(1),
        ArrowUp: () => this.opacity(0.05),
        ArrowDown: () => this.opacity(-0.05),
      }[event.key] ??
      (LAYOUTS[event.key] && (() => this.layout.use(Number(event.key))));
    if (!act) return;
    event.preventDefault();
    act();
  }

  opacity(by) {
    this.tools.set({ opacity: Math.min(1, Math.max(0, Math.round(100 * (this.tools.settings.opacity + by)) / 100)) });
  }
}

const KEYS = [
  ["space", "pause and play, where the source can"],
  ["1 2 3 4", "layouts"],
  ["← →", "one frame back or on (replay), one step (paused player)"],
  ["↑ ↓", "share of the slice in the blend"],
  ["c", "blend or checkerboard"],
  ["o", "outlines of the labels"],
  ["s", "snapshot: a PNG, and the frame's data as JSON"],
  ["p", "side panel"],
  ["Esc", "give up choosing a point"],
];
const TEXTS = [
  [
    "The word at the top",
    "ACCEPTED: the newest registration passed its checks. REJECTED: it did not; the pose shown is an older one. " +
      "LOST: no pose may be shown. STALE (grey picture): the picture is older than three frame periods, and 0.3 s " +
      "at least: do not act on it.",
  ],
  [
    "The fused picture",
    "Blend: grey where ultrasound and volume agree, orange where the volume alone is bright, blue where the " +
      "ultrasound is. Checker: fields of the ultrasound (grey) and the volume (amber). Letters at the sides are the " +
      "patient's: R, L, A, P, S, I. The orange dot is the marked side of the probe; the ruler counts mm from the " +
      "transducer's face.",
  ],
  ["Window and level", "Drag on a picture: right is wider, down is darker. Double click: the whole range."],
  ["Target", "Its distance is signed: positive on the side that x × y of the picture looks to."],
];

function helpText() {
  const rows = KEYS.flatMap(([keys, words]) => [
    h(
      "dt",
      {},
      keys.split(" ").flatMap((key) => [h("kbd", {}, key), " "]),
    ),
    h("dd", {}, words),
  ]);
  return [
    h("h2", { autofocus: true, tabindex: -1 }, "usreg"),
    h("p", {}, "Research use only. Not for diagnosis or treatment."),
    h("dl", {}, rows),
    ...TEXTS.flatMap(([title, words]) => [h("h3", {}, title), h("p", {}, words)]),
    h("div", { class: "row end" }, h("button", { class: "main", onclick: () => $("help").close() }, "Close")),
  ];
}
