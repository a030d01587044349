// SPDX-License-Identifier: Apache-2.0
/** One pane of the 2D picture: the picture itself with the right shape of its pixels, and what is written around it. */

import { apply, imageToPixel, inverse } from "./geometry.js";
import { legend, readout } from "./naming.js";
import { INK, rgb } from "./palette.js";
import { foot, letterSize, title } from "./banners.js";
import { signed, text } from "./words.js";

const NEAR_MM = 3; // marks within so much of the plane are drawn full, farther ones faint
const FAR_MM = 12;
const ROUND_PX = 5; // of the frame

/** Transform of a frame's pixels to the canvas: as large as fits, pixels in their true shape. */
function place(rect, header, margin) {
  const [[a, b], [, d]] = header.pixel_to_mm;
  const [w, h] = [header.width, header.height];
  const xs = [0, a * w, b * h, a * w + b * h];
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const room = [rect.w - margin.left - margin.right, rect.h - margin.top - margin.bottom];
  const scale = Math.max(1e-6, Math.min(room[0] / (x1 - x0), room[1] / (d * h)));
  const left = rect.x + margin.left + (room[0] - scale * (x1 - x0)) / 2 - scale * x0;
  const top = rect.y + margin.top + (room[1] - scale * d * h) / 2;
  const m = [scale * a, 0, scale * b, scale * d, left, top]; // of the pixel's corner
  const toCanvas = ([c, r]) => [m[0] * (c + 0.5) + m[2] * (r + 0.5) + m[4], m[3] * (r + 0.5) + m[5]];
  const toPixel = ([x, y]) => {
    const row = (y - m[5]) / m[3];
    return [(x - m[4] - m[2] * row) / m[0] - 0.5, row - 0.5];
  };
  const box = { x: left + scale * x0, y: top, w: scale * (x1 - x0), h: scale * d * h };
  return { m, toCanvas, toPixel, box, perMm: scale };
}

/** Draw a pane. @returns its `place`, by which clicks are found again. */
export function drawPane(g, rect, ratio, { header, buffers }, layer, look) {
  const size = letterSize(rect, ratio);
  const margin = { left: 2.9 * size, right: 1.5 * size, top: 1.9 * size, bottom: 2.5 * size };
  const at = place(rect, header, margin);
  g.save();
  g.beginPath();
  g.rect(rect.x, rect.y, rect.w, rect.h);
  g.clip();
  if (layer) {
    g.setTransform(...at.m);
    g.imageSmoothingEnabled = true;
    g.drawImage(layer, 0, 0);
    g.setTransform(1, 0, 0, 1, 0, 0);
  }
  const pen = { g, rect, ratio, size, at, header, buffers, look };
  outline(pen);
  const named = rect.pane !== "us" && look.settings.contours ? contours(pen) : [];
  ruler(pen);
  marker(pen);
  letters(pen);
  if (rect.pane !== "us" || !look.settings.panes.includes("fused")) target(pen);
  ownMarks(pen);
  title(pen, layer);
  if (look.settings.names) legend(pen, named);
  foot(pen);
  readout(pen, named);
  g.restore();
  return at;
}

function path(pen, points, from, count) {
  const { g, at } = pen;
  const [a, , c, d, e, f] = at.m;
  g.beginPath();
  for (let i = from; i < from + count; i++) {
    const [x, y] = [points[2 * i] + 0.5, points[2 * i + 1] + 0.5];
    g.lineTo(a * x + c * y + e, d * y + f);
  }
  g.closePath();
}

/** A closed outline with its corners rounded: what is traced on pixels has stairs that are not there. */
function smoothPath(pen, points, from, count) {
  const { g, at } = pen;
  const reach = ROUND_PX * at.m[3];
  const [a, , c, d, e, f] = at.m;
  const point = (i) => {
    const [x, y] = [points[2 * (from + (i % count))] + 0.5, points[2 * (from + (i % count)) + 1] + 0.5];
    return [a * x + c * y + e, d * y + f];
  };
  g.beginPath();
  let [before, here] = [point(count - 1), point(0)];
  for (let i = 1; i <= count; i++) {
    const next = point(i);
    g.lineTo(...towards(here, before, reach));
    g.quadraticCurveTo(here[0], here[1], ...towards(here, next, reach));
    [before, here] = [here, next];
  }
  g.closePath();
}

function towards([x, y], [u, v], reach) {
  const share = Math.min(0.5, reach / (Math.hypot(u - x, v - y) || 1));
  return [x + share * (u - x), y + share * (v - y)];
}

function outline(pen) {
  const points = pen.buffers.outline;
  if (!points) return;
  path(pen, points, 0, points.length / 2);
  pen.g.strokeStyle = "rgba(170,180,190,0.55)";
  pen.g.lineWidth = pen.ratio;
  pen.g.stroke();
}

/** Outlines of labels. @returns what was drawn, with paths for the pointer. */
function contours(pen) {
  const { g, header, buffers, ratio, rect, look } = pen;
  const points = buffers.contour;
  if (!points) return [];
  g.save();
  if (buffers.outline) {
    path(pen, buffers.outline, 0, buffers.outline.length / 2);
    g.clip(); // they run on outside of the sector
  }
  g.lineWidth = Math.max(1.25 * ratio, rect.h / 480);
  g.lineJoin = "round";
  let from = 0;
  for (const contour of header.contours) {
    g.strokeStyle = look.old ? "rgba(150,150,150,0.5)" : rgb(contour.colour);
    for (const count of contour.outlines) {
      smoothPath(pen, points, from, count);
      g.stroke();
      from += count;
    }
  }
  g.restore();
  return header.contours;
}

function ruler(pen) {
  const { g, at, size, ratio, header } = pen;
  const x = at.box.x - 0.25 * size;
  for (const { row_px, label } of header.ruler ?? []) {
    const y = at.toCanvas([0, row_px])[1];
    g.strokeStyle = INK.dim;
    g.lineWidth = ratio;
    g.beginPath();
    g.moveTo(x, y);
    g.lineTo(x + (label ? 0.7 : 0.4) * size, y);
    g.stroke();
    if (label)
      text(g, label, x - 0.25 * size, y, { size: 0.95 * size, colour: INK.grey, align: "right", base: "middle" });
  }
}

function marker(pen) {
  const { g, at, header, ratio } = pen;
  if (!header.marker_px) return;
  const [x, y] = at.toCanvas(header.marker_px);
  g.beginPath();
  g.arc(x, y, Math.max(5 * ratio, header.marker_radius_px * at.m[3]), 0, 7);
  g.fillStyle = INK.orange;
  g.fill();
  g.strokeStyle = INK.white;
  g.lineWidth = 1.25 * ratio;
  g.stroke();
}

function letters(pen) {
  const { g, at, size, header } = pen;
  if (!header.letters) return;
  const { box } = at;
  const style = { size: 1.2 * size, colour: INK.yellow, weight: 600, base: "middle", align: "center" };
  const { left, right, top, bottom } = header.letters;
  text(g, left, box.x + 0.95 * size, box.y + box.h / 2, style);
  text(g, right, box.x + box.w - 0.95 * size, box.y + box.h / 2, style);
  text(g, top, box.x + box.w / 2, box.y - 0.8 * size, style);
  text(g, bottom, box.x + box.w / 2, box.y + box.h + 0.75 * size, style);
}

function target(pen) {
  const { g, at, size, ratio, header } = pen;
  if (!header.target) return;
  const { px, distance_mm } = header.target;
  const far = Math.abs(distance_mm) > NEAR_MM;
  const clamp = (value, end) => Math.min(end - 1, Math.max(0, value));
  const held = [clamp(px[0], header.width), clamp(px[1], header.height)]; // beside the picture: at its edge
  const [x, y] = at.toCanvas(held);
  const r = Math.max(8 * ratio, NEAR_MM * at.perMm);
  g.strokeStyle = INK.purple;
  g.lineWidth = 2 * ratio;
  g.setLineDash(far ? [4 * ratio, 4 * ratio] : []);
  g.beginPath();
  g.arc(x, y, r, 0, 7);
  for (const [dx, dy] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ]) {
    g.moveTo(x + 0.6 * r * dx, y + 0.6 * r * dy);
    g.lineTo(x + 1.6 * r * dx, y + 1.6 * r * dy);
  }
  g.stroke();
  g.setLineDash([]);
  const words = `target ${signed(distance_mm)} mm`;
  const right = x + 1.9 * r + 8 * size > at.box.x + at.box.w;
  const style = { size, colour: INK.purple, base: "middle", weight: 600, align: right ? "right" : "left" };
  text(g, words, x + (right ? -1.9 : 1.9) * r, y, style);
}

/** Points that a person has set, where they are near the plane. */
function ownMarks(pen) {
  const { g, at, size, ratio, header, look } = pen;
  if (!look.marks.length || !header.world_T_image) return;
  const image_T_world = inverse(header.world_T_image);
  for (const { label, world } of look.marks) {
    const point = apply(image_T_world, world);
    if (Math.abs(point[2]) > FAR_MM) continue;
    const [x, y] = at.toCanvas(imageToPixel(header.pixel_to_mm, point));
    g.globalAlpha = Math.abs(point[2]) < NEAR_MM ? 1 : 0.4;
    g.strokeStyle = INK.yellow;
    g.lineWidth = 1.5 * ratio;
    g.beginPath();
    g.moveTo(x - 6 * ratio, y);
    g.lineTo(x + 6 * ratio, y);
    g.moveTo(x, y - 6 * ratio);
    g.lineTo(x, y + 6 * ratio);
    g.stroke();
    text(g, label, x + 0.6 * size, y - 0.6 * size, { size, colour: INK.yellow });
    g.globalAlpha = 1;
  }
}
