// SPDX-License-Identifier: Apache-2.0
/** What is on the screen as a PNG, and beside it the frame's data as JSON. */

import { h, toast } from "./dom.js";

const FACE = "system-ui, 'Noto Sans', sans-serif";
const HEAD = 52; // of a picture up to 1400 wide
const FOOT = 30;

/**
 * @param {import("./session.js").Session} session
 * @param {import("./panes.js").Panes} panes
 * @param {import("./layout.js").Layout} layout
 */
export async function snapshot(session, panes, layout) {
  try {
    const taken = await session.call("snapshot");
    if (!taken.header) return toast("There is no picture yet.");
    const scene = panes.view && layout.shows("3d") ? await panes.view.snapshot() : null;
    const now = new Date();
    const name = fileName(session.hello.title, taken.header, now);
    const png = await compose(session.hello, taken, scene, now);
    const json = new Blob([JSON.stringify(record(session.hello, session.scene, taken, now), null, 2)], {
      type: "application/json",
    });
    download(png, `${name}.png`);
    download(json, `${name}.json`);
    toast(`Saved ${name}.png and .json`, "good");
  } catch (error) {
    toast(`No snapshot: ${error.message || error}`, "bad");
  }
}

function fileName(title, header, now) {
  const session =
    title
      .replace(/[^A-Za-z0-9_-]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 60) || "session";
  return `usreg_${session}_frame${header.seq}_${now.toISOString().replace(/[-:]/g, "").slice(0, 15)}`;
}

function record(hello, scene, taken, now) {
  const { buffers: _, ...frame } = taken.header;
  return {
    software: "usreg",
    version: hello.version,
    notice: hello.notice,
    session: hello.title,
    kind: hello.kind,
    saved: now.toISOString(),
    state: taken.state,
    age_ms: Number.isFinite(taken.ageMs) ? taken.ageMs : null,
    server_s: taken.server_s,
    volume: scene?.volume
      ? { name: scene.volume.name, modality: scene.volume.modality, sha256: scene.volume.sha256 }
      : null,
    frame,
  };
}

function compose(hello, taken, scene, now) {
  const { bitmap, header } = taken;
  const height = Math.max(bitmap.height, 480);
  const parts = [bitmap, ...(scene ? [scene] : [])].map((image) => ({
    image,
    width: Math.round((image.width * height) / Math.max(1, image.height)),
  }));
  const width = parts.reduce((sum, part) => sum + part.width, 0);
  const scale = Math.max(1, width / 1400);
  const [head, foot] = [Math.round(HEAD * scale), Math.round(FOOT * scale)];
  const canvas = h("canvas");
  Object.assign(canvas, { width, height: head + height + foot });
  const g = canvas.getContext("2d");
  g.fillStyle = "#0b0f14";
  g.fillRect(0, 0, canvas.width, canvas.height);
  let x = 0;
  for (const part of parts) {
    g.drawImage(part.image, x, head, part.width, height);
    x += part.width;
  }
  const write = (words, at, y, size, colour, align = "left") => {
    Object.assign(g, { font: `600 ${size * scale}px ${FACE}`, fillStyle: colour, textAlign: align });
    g.fillText(words, at, y, width - 24);
  };
  const word = taken.state === "LIVE" ? header.status.replaceAll("_", " ") : `${taken.state} · ${header.status}`;
  write(word, 12, 34 * scale, 26, header.accepted && taken.state === "LIVE" ? "#2cc295" : "#e69f00");
  write(hello.notice, width - 12, 34 * scale, 20, "#f0e442", "right");
  const score = header.score === null ? "" : ` · score ${header.score.toFixed(2)}`;
  const frame = `frame ${header.seq} at ${header.stamp_s.toFixed(3)} s${score}`;
  const told = `usreg ${hello.version} · ${hello.title} · ${frame} · saved ${now.toISOString()}`;
  write(told, 12, canvas.height - 10 * scale, 14, "#cfd8df");
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is empty"))), "image/png"),
  );
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
