// SPDX-License-Identifier: Apache-2.0
// Words over the 3D picture: letters at points of the scene, meaning of the colours, why something is missing, buttons.
import * as THREE from "../vendor/three/three.module.js";
import { INK } from "./palette.js";

const FACE = "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
const EDGE = "0 0 3px #000, 0 0 3px #000, 0 0 6px #000";
const BESIDE_PX = 12; // from a point to words beside it
const STALE = "STALE";
const LEGEND = [
  ["smoothed pose", INK.light, "solid"],
  ["newest raw pose", INK.orange, "dashed"],
  ["frame", INK.sky, "solid"],
  ["sweep, target", INK.yellow, "solid"],
];

function made(tag, style, text = "") {
  const element = document.createElement(tag);
  Object.assign(element.style, { fontFamily: FACE, fontSize: "14px", textShadow: EDGE, ...style });
  element.textContent = text;
  return element;
}

/** A layer of words over a pane; lets the mouse through, but not at its buttons. */
export class Words {
  constructor(pane) {
    this.layer = made("div", { position: "absolute", inset: "0", overflow: "hidden", pointerEvents: "none" });
    this._labels = [];
    this._notice = made("div", {
      position: "absolute",
      boxSizing: "border-box",
      padding: "6px 12px",
      borderRadius: "6px",
      color: INK.light,
      background: "rgba(10,14,18,0.8)",
    });
    this._legend = made("div", {
      position: "absolute",
      left: "8px",
      bottom: "8px",
      color: INK.light,
      lineHeight: "1.35",
    });
    for (const [words, colour, dash] of LEGEND) {
      const row = made("div", {});
      row.append(
        made("span", {
          display: "inline-block",
          width: "22px",
          marginRight: "8px",
          borderTop: `3px ${dash} ${colour}`,
          verticalAlign: "middle",
        }),
        words,
      );
      this._legend.append(row);
    }
    this._buttons = made("div", { position: "absolute", right: "8px", top: "8px", display: "flex", gap: "6px" });
    this._stale = made(
      "b",
      { position: "absolute", left: "12px", top: "8px", fontSize: "24px", color: INK.orange },
      STALE,
    );
    this.layer.append(this._legend, this._notice, this._buttons, this._stale);
    pane.append(this.layer);
    this.note("");
    this.stale(false);
  }

  /** The picture is old: its labels lose their colour, and it says so. */
  stale(on) {
    this._stale.style.display = on ? "block" : "none";
    this._old = on;
    for (const label of this._labels) label.style.color = on ? INK.grey : "";
  }

  /** A button; returns a function that shows whether it is on. */
  button(words, title, pressed) {
    const button = made(
      "button",
      {
        pointerEvents: "auto",
        minHeight: "34px",
        padding: "4px 12px",
        borderRadius: "6px",
        cursor: "pointer",
        border: `1px solid ${INK.dim}`,
        background: "rgba(20,26,32,0.85)",
        color: INK.light,
      },
      words,
    );
    button.type = "button";
    button.title = title;
    button.addEventListener("click", pressed);
    this._buttons.append(button);
    return (on) => {
      button.setAttribute("aria-pressed", String(on));
      button.style.borderColor = button.style.color = on ? INK.orange : "";
      if (!on) Object.assign(button.style, { borderColor: INK.dim, color: INK.light });
    };
  }

  /** Why the pane, or a part of it, is empty; "" takes it away. `aside`: at the edge, since something is drawn. */
  note(words, aside = false) {
    this.noted = words;
    if (this._notice.textContent !== words) this._notice.textContent = words;
    const middle = { left: "50%", top: "50%", transform: "translate(-50%,-50%)", textAlign: "center", maxWidth: "80%" };
    const edge = { left: "8px", top: "52px", transform: "none", textAlign: "left", maxWidth: "calc(100% - 16px)" };
    Object.assign(this._notice.style, aside ? edge : middle, { display: words ? "block" : "none" });
  }

  /** What the colours mean is left out where there is no room for it. */
  resize(width, height) {
    this._roomy = width >= 420 && height >= 300;
    this._legend.style.display = this._roomy ? "block" : "none";
  }

  /** Place labels [{text, world: [x, y, z], colour}] as a camera sees them, in a pane of width x height. */
  place(labels, camera, width, height) {
    while (this._labels.length < labels.length) {
      const label = made("div", { position: "absolute", left: "0", top: "0", fontWeight: "700", fontSize: "16px" });
      this.layer.prepend(label);
      this._labels.push(label);
    }
    this._labels.forEach((label, k) => {
      const at = labels[k] && onScreen(labels[k].world, camera, width, height);
      label.style.display = at ? "block" : "none";
      if (!at) return;
      if (label.textContent !== labels[k].text) label.textContent = labels[k].text;
      label.style.color = this._old ? INK.grey : labels[k].colour;
      const shift = labels[k].beside ? `${BESIDE_PX}px` : "-50%";
      label.style.transform = `translate(${at[0].toFixed(1)}px,${at[1].toFixed(1)}px) translate(${shift},-50%)`;
    });
  }

  /** The same words drawn on a 2D canvas, for a snapshot. */
  draw(g, labels, camera, width, height) {
    g.textBaseline = "middle";
    for (const { text, world, colour, beside } of labels) {
      const at = onScreen(world, camera, width, height);
      g.textAlign = beside ? "left" : "center";
      if (at)
        outlined(g, text, at[0] + (beside ? BESIDE_PX : 0), at[1], `700 16px ${FACE}`, this._old ? INK.grey : colour);
    }
    g.textAlign = "left";
    if (this._old) outlined(g, STALE, 12, 24, `800 24px ${FACE}`, INK.orange);
    (this._roomy ? LEGEND : []).forEach(([words, colour, dash], k) => {
      const y = height - 18 - 19 * (LEGEND.length - 1 - k);
      g.strokeStyle = colour;
      g.lineWidth = 3;
      g.setLineDash(dash === "dashed" ? [5, 4] : []);
      g.beginPath();
      g.moveTo(8, y);
      g.lineTo(30, y);
      g.stroke();
      outlined(g, words, 38, y, `14px ${FACE}`, INK.light);
    });
    if (this.noted) outlined(g, this.noted, 12, 66, `14px ${FACE}`, INK.light);
  }

  dispose() {
    this.layer.remove();
  }
}

function outlined(g, words, x, y, font, colour) {
  g.font = font;
  g.setLineDash([]);
  g.strokeStyle = "rgba(0,0,0,0.85)";
  g.lineWidth = 3;
  g.strokeText(words, x, y);
  g.fillStyle = colour;
  g.fillText(words, x, y);
}

const point = new THREE.Vector3();

function onScreen(world, camera, width, height) {
  point.set(...world).project(camera);
  if (Math.abs(point.z) > 1) return null; // behind the camera, or too far
  return [((point.x + 1) / 2) * width, ((1 - point.y) / 2) * height];
}
