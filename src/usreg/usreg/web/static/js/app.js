// SPDX-License-Identifier: Apache-2.0
/** Puts the page together. */

import { Bar } from "./bar.js";
import { $, toast } from "./dom.js";
import { Keys } from "./keys.js";
import { Layout } from "./layout.js";
import { Pointer } from "./pointer.js";
import { Panes } from "./panes.js";
import { SETTINGS } from "./settings.js";
import { Session } from "./session.js";
import { Side } from "./side.js";
import { snapshot } from "./snapshot.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";

const BAR_MS = 100; // faster, nobody reads

function start() {
  const settings = structuredClone(SETTINGS);
  const session = new Session($("picture"), settings);
  const bar = new Bar();
  const panes = new Panes(session);
  const layout = new Layout(
    (pane, shown) => panes.changed(pane, shown),
    (size) => session.post({ type: "size", ...size }),
  );
  const send = () => session.post({ type: "settings", settings: { ...settings, panes: layout.pictures } });
  layout.onChange.push(send);
  const tools = new Tools(settings, send, layout);
  const pointer = new Pointer(session, tools, layout, panes);
  const timeline = new Timeline(session);
  const side = new Side(session, pointer);
  const keys = new Keys({
    session,
    layout,
    timeline,
    tools,
    pointer,
    snapshot: () => snapshot(session, panes, layout),
  });

  let shown = { at: 0, words: "" };
  session.addEventListener("state", ({ detail }) => {
    panes.stale(detail.state === "STALE" || detail.state === "CLOSED");
    const words = `${detail.state} ${detail.told?.status}`;
    const now = performance.now();
    if (now - shown.at < BAR_MS && words === shown.words) return;
    shown = { at: now, words };
    bar.show(detail, session.status);
    side.show();
    timeline.show();
    keys.show();
  });
  session.addEventListener("hello", ({ detail }) => {
    bar.hello(detail.header);
    timeline.hello(detail.header, detail.buffers);
    panes.hello(detail.header, detail.buffers);
    side.show();
  });
  session.addEventListener("scene", ({ detail }) => panes.scene(detail.header, detail.buffers));
  session.addEventListener("organ", ({ detail }) => panes.organ(detail.header, detail.buffers));
  session.addEventListener("status", ({ detail }) => panes.status(detail.header));
  session.addEventListener("broken", ({ detail }) => toast(`The picture cannot be drawn: ${detail}`, "bad"));
  session.addEventListener("frame", ({ detail }) => {
    panes.frame(detail.header, detail.buffers);
    timeline.frame(detail.header);
    // 3D draws in the same turn; then the browser has room for what a person does, then comes the next
    requestAnimationFrame(() => setTimeout(() => session.ready()));
  });
  layout.use(1);
  expose(session, panes);
}

/** For tests and figures. */
function expose(session, panes) {
  const get = (read) => ({ get: read, enumerable: true });
  window.usreg = Object.defineProperties(
    { pixels: () => session.call("pixels") },
    {
      frames2d: get(() => session.seen.frames2d),
      frames3d: get(() => panes.frames3d),
      seq: get(() => session.seen.seq),
      state: get(() => session.seen.state),
      ageMs: get(() => session.seen.ageMs),
      times: get(() => session.seen.times),
      latenciesMs: get(() => session.latenciesMs),
      agesMs: get(() => session.agesMs),
      latest: get(() => session.frame),
      registered: get(() => Boolean(session.hello) && !session.hello.replay?.registering),
    },
  );
}

if (typeof OffscreenCanvas === "undefined" || !HTMLCanvasElement.prototype.transferControlToOffscreen) {
  toast("This browser cannot draw in the background (OffscreenCanvas): use a newer one.", "bad");
} else start();
