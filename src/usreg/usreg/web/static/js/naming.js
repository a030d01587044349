// SPDX-License-Identifier: Apache-2.0
/** Names in the 2D picture: a list of the outlined labels, and what lies under the pointer. */

import { apply, inverse, inWords, pixelToImage } from "./geometry.js";
import { INK, rgb } from "./palette.js";
import { measured, text } from "./words.js";

const spaced = (name) => name.replaceAll("_", " ");

/** Names of the outlined labels: beside the picture, or in the corner that the sector leaves free. */
export function legend(pen, named) {
  const { g, rect, size, at, header, look } = pen;
  if (!named.length || !header.fused || (rect.pane !== "fused" && look.settings.panes.includes("fused"))) return;
  const step = 1.4 * size;
  const top = Math.max(rect.y + 2.2 * size, at.box.y);
  const room = Math.max(1, Math.floor((at.box.y + at.box.h / 2 - 1.2 * size - top) / step));
  const width = ({ name }) => 1.9 * size + measured(g, spaced(name), 0.95 * size);
  const widest = Math.max(...named.map(width));
  const beside = at.box.x - 2.4 * size - widest;
  const left = beside > rect.x ? beside : at.box.x + 0.2 * size;
  const edge = beside > rect.x ? () => Infinity : sectorEdge(pen);
  const fits = (one, i) => i < room && left + width(one) <= edge(top + step * (i + 1));
  const rows = listed(named, fits);
  rows.forEach(({ name, colour }, i) => {
    const y = top + step * (i + 1) - 0.25 * size;
    g.fillStyle = "rgba(5,7,10,0.72)";
    g.fillRect(left, y - 1.1 * size, width({ name }), step);
    if (colour) {
      g.fillStyle = rgb(colour);
      g.fillRect(left + 0.3 * size, y - 0.44 * size, 0.9 * size, 0.26 * size);
    }
    text(g, spaced(name), left + (colour ? 1.5 : 0.3) * size, y, { size: 0.95 * size, colour: INK.light });
  });
}

/** What fits row by row, rows being narrower further down; the last tells how many are left. */
function listed(named, fits) {
  const [rows, left] = [[], [...named]];
  while (left.length) {
    const next = left.findIndex((one) => fits(one, rows.length));
    const more = left.length === 1 || fits({ name: `+ ${left.length}` }, rows.length + 1);
    if (next < 0 || !more) break;
    rows.push(...left.splice(next, 1));
  }
  return left.length ? [...rows, { name: `+ ${left.length}` }] : rows;
}

/** Where the sector begins at a height of the canvas; Infinity above and below it. */
function sectorEdge({ at, buffers }) {
  const points = buffers.outline ?? [];
  const count = points.length / 2;
  const place = (i) => at.toCanvas([points[2 * (i % count)], points[2 * (i % count) + 1]]);
  const path = Array.from({ length: count }, (_, i) => place(i));
  return (y) => {
    let least = Infinity;
    path.forEach(([x0, y0], i) => {
      const [x1, y1] = path[(i + 1) % count];
      if (y0 > y !== y1 > y) least = Math.min(least, x0 + ((x1 - x0) * (y - y0)) / (y1 - y0));
    });
    return least;
  };
}

/** Names of what the pointer lies in or near, smallest first. */
function namesAt(pen, pixel) {
  const points = pen.buffers.contour;
  const found = [];
  let from = 0;
  for (const { name, outlines } of pen.header.contours) {
    for (const count of outlines) {
      const area = areaIfInside(points, from, count, pixel);
      if (area) found.push({ name, area });
      from += count;
    }
  }
  return found.sort((p, q) => p.area - q.area).map(({ name }) => spaced(name));
}

function areaIfInside(points, from, count, [x, y]) {
  let [inside, twice] = [false, 0];
  for (let i = from, j = from + count - 1; i < from + count; j = i++) {
    const [xi, yi, xj, yj] = [points[2 * i], points[2 * i + 1], points[2 * j], points[2 * j + 1]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    twice += xj * yi - xi * yj;
  }
  return inside ? Math.abs(twice) : 0;
}

/** What lies under the pointer, beside it: organ, depth, place in the volume. */
export function readout(pen, named) {
  const { g, rect, size, header, look, at, ratio } = pen;
  if (!look.pointer) return;
  const on = [look.pointer[0] * ratio, look.pointer[1] * ratio];
  const px = at.toPixel(on);
  const inRect = on[0] >= rect.x && on[1] >= rect.y && on[0] < rect.x + rect.w && on[1] < rect.y + rect.h;
  if (!inRect || px[0] < 0 || px[1] < 0 || px[0] > header.width - 1 || px[1] > header.height - 1) return;
  const lines = named.length ? namesAt(pen, px).slice(0, 2) : [];
  const point = pixelToImage(header.pixel_to_mm, px);
  const top = pixelToImage(header.pixel_to_mm, header.skin_px ?? [0, 0]);
  lines.push(`depth ${(point[1] - top[1]).toFixed(0)} mm`);
  if (header.world_T_ct && header.world_T_image) {
    lines.push(`${inWords(apply(inverse(header.world_T_ct), apply(header.world_T_image, point)), Boolean(header.letters))} mm`);
  }
  const [width, height] = [
    Math.max(...lines.map((line) => measured(g, line, 0.95 * size))) + 1.2 * size,
    1.4 * size * lines.length + 0.5 * size,
  ];
  const x = on[0] + 1.2 * size + width > rect.x + rect.w ? on[0] - 1.2 * size - width : on[0] + 1.2 * size;
  const y = on[1] + 1.2 * size + height > rect.y + rect.h ? on[1] - 1.2 * size - height : on[1] + 1.2 * size;
  g.fillStyle = "rgba(16,22,28,0.82)";
  g.fillRect(x, y, width, height);
  lines.forEach((line, i) =>
    text(g, line, x + 0.6 * size, y + 1.4 * size * (i + 1) - 0.1 * size, { size: 0.95 * size, colour: INK.white }),
  );
}
