// SPDX-License-Identifier: Apache-2.0
// The 3D view: organs, volume, frame, arm and target in the room (world, mm). Draws only when something has changed,
// one frame at a time, and as sharp as the machine allows.
import * as THREE from "../vendor/three/three.module.js";
import { INK } from "./palette.js";
import { Viewpoint } from "./view3d_camera.js";
import { FrameParts } from "./view3d_frame.js";
import { Pace } from "./view3d_pace.js";
import { Arm, Target, Trail } from "./view3d_parts.js";
import { VolumeParts } from "./view3d_volume.js";
import { Words } from "./view3d_words.js";

const GROUND = 0x0b0f13;
const STILL_MS = 400; // after which a picture that nothing moves is drawn once more, sharp
const GREY = "grayscale(1) brightness(0.6)";
const WAITING = "Waiting for the first frame.";
const LOST =
  "The graphics driver dropped the 3D picture. It comes back when the driver does; else load the page again.";

/** The 3D pane. The element has a size and may hold nothing else. */
export class View3D {
  /** @throws Error "no WebGL: ..." where the browser offers none; the element then says so too. */
  constructor(element) {
    this._element = element;
    if (getComputedStyle(element).position === "static") element.style.position = "relative";
    this._canvas = document.createElement("canvas");
    Object.assign(this._canvas.style, {
      position: "absolute",
      inset: "0",
      width: "100%",
      height: "100%",
      outline: "none",
    });
    this._canvas.tabIndex = 0;
    this._renderer = rendererOn(this._canvas, element);
    element.append(this._canvas);
    this._words = new Words(element);
    this._gl = this._renderer.getContext();
    this._pace = new Pace();
    this._begin();
    this._listen();
    this._words.note(WAITING);
    this.resize();
  }

  /** Finished draws: the graphics driver has said that it was done. */
  get frames() {
    return this._frames;
  }

  /** The volume, its landmarks and the organs that will come; a scene that comes again replaces the first. */
  setScene(header) {
    if (this._volume.setScene(header)) this._view.forget();
    this._hasVolume = Boolean(header.volume);
    this._invalidate();
  }

  /** The surface of an organ, in ct. */
  addOrgan(header, buffers) {
    this._volume.addOrgan(header, buffers);
    this._invalidate();
  }

  /** The newest frame; what was not drawn yet of an older one is never drawn. */
  setFrame(header, buffers) {
    this._next = { header, buffers };
    this._invalidate();
  }

  /** Grey while the newest frame is old. */
  setStale(stale) {
    this._stale = stale;
    this._canvas.style.filter = stale ? GREY : "";
    this._words.stale(stale);
  }

  /** To be called when the pane's size has changed. */
  resize() {
    const { clientWidth, clientHeight } = this._element;
    if (!clientWidth || !clientHeight) return;
    this._size = [clientWidth, clientHeight];
    this._view.resize(clientWidth, clientHeight);
    this._words.resize(clientWidth, clientHeight);
    this._invalidate();
  }

  /** Look at the "probe" or at the "volume". */
  focus(what) {
    this._view.focus(what, this._header, this._volume);
  }

  /** The picture with its words on a canvas of its own, sharp. */
  async snapshot() {
    const [width, height] = this._size;
    const copy = document.createElement("canvas");
    copy.width = width;
    copy.height = height;
    const g = copy.getContext("2d");
    this._render(1); // and read in the same turn, before the browser takes the buffer
    g.filter = this._stale ? GREY : "none";
    g.drawImage(this._canvas, 0, 0, width, height);
    g.filter = "none";
    this._words.draw(g, this._labels(), this._view.camera, width, height);
    return copy;
  }

  /** End drawing and give back what the graphics card holds. */
  dispose() {
    this._ended = true;
    this._view.dispose();
    this._watch.disconnect();
    this._renderer.dispose();
    this._renderer.forceContextLoss();
    this._words.dispose();
    this._canvas.remove();
  }

  _begin() {
    this._frames = 0;
    this._size = [0, 0];
    this._header = this._next = null;
    this._stale = this._dirty = this._drawing = this._asked = this._lost = this._ended = this._hasVolume = false;
    this._drawnScale = 0;
    this._volume = new VolumeParts();
    this._frame = new FrameParts();
    this._arm = new Arm();
    this._trail = new Trail();
    this._target = new Target();
    this._scene = new THREE.Scene();
    this._scene.add(this._volume.group, this._frame.group, this._arm.group, this._trail.line, this._target.group);
    this._view = new Viewpoint(this._canvas, () => this._invalidate());
  }

  _listen() {
    const { _canvas: canvas, _words: words } = this;
    const follow = () => showFollow((this._view.follow = !this._view.follow));
    words.button("Volume", "look at the whole volume (v)", () => this.focus("volume"));
    words.button("Probe", "look at the probe (p)", () => this.focus("probe"));
    const showFollow = words.button("Follow", "the view moves with the probe (f)", follow);
    const keys = { v: () => this.focus("volume"), p: () => this.focus("probe"), f: follow };
    canvas.addEventListener("keydown", (event) => keys[event.key]?.());
    canvas.addEventListener("dblclick", (event) => this._pick(event));
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this._lost = true;
      canvas.style.visibility = "hidden"; // browsers show something white there
      words.note(LOST);
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this._lost = this._drawing = false;
      canvas.style.visibility = "";
      this._renderer.setClearColor(GROUND);
      words.note(this._header ? absent(this._header, this._hasVolume) : WAITING, Boolean(this._header));
      this._invalidate();
    });
    this._watch = new ResizeObserver(() => this.resize());
    this._watch.observe(this._element);
  }

  /** Turn about the point of the scene that was clicked twice. */
  _pick(event) {
    const [width, height] = this._size;
    const ray = new THREE.Raycaster();
    const at = new THREE.Vector2((2 * event.offsetX) / width - 1, 1 - (2 * event.offsetY) / height);
    ray.setFromCamera(at, this._view.camera);
    const hits = ray.intersectObject(this._scene, true).filter(({ object }) => object.isMesh && shown(object));
    const hit = hits.find(({ object }) => !object.material.transparent) ?? hits[0];
    if (hit) this._view.turnAbout(hit.point);
    else this.focus("volume");
  }

  _invalidate() {
    this._dirty = true;
    this._ask();
  }

  _ask() {
    if (this._asked || this._drawing || this._ended || this._lost || !this._size[0]) return;
    this._asked = true;
    requestAnimationFrame(() => {
      this._asked = false;
      if (this._ended || this._lost) return;
      if (this._dirty) this._draw();
    });
  }

  _draw(sharp = false) {
    const scale = sharp ? 1 : this._pace.scale(this._size[0] * this._size[1]);
    const begun = performance.now();
    this._dirty = false;
    this._drawing = true;
    clearTimeout(this._still);
    this._render(scale);
    this._finished().then((done) => {
      const ms = performance.now() - begun;
      if (done) this._frames += 1;
      if (done && !sharp) this._pace.took(ms);
      if (done && scale < 1) this._still = setTimeout(() => this._sharpen(), STILL_MS);
      setTimeout(() => this._rested(), this._pace.restMs(ms));
    });
  }

  _rested() {
    this._drawing = false;
    if (this._dirty) this._ask();
  }

  /** Nothing has moved for a while: once more, with every pixel. */
  _sharpen() {
    requestAnimationFrame(() => {
      if (!this._dirty && !this._drawing && !this._lost && !this._ended) this._draw(true);
    });
  }

  _render(scale) {
    this._take();
    const [width, height] = this._size;
    if (this._drawnScale !== scale || this._drawnSize !== this._size) {
      this._renderer.setPixelRatio(scale);
      this._renderer.setSize(width, height, false);
      [this._drawnScale, this._drawnSize] = [scale, this._size];
    }
    this._renderer.render(this._scene, this._view.camera);
    this._words.place(this._labels(), this._view.camera, width, height);
  }

  /** True once the driver has drawn everything that was asked for; false where the context was lost. */
  _finished() {
    const gl = this._gl;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return new Promise((told) => {
      const look = () => {
        if (gl.isContextLost() || !fence) return told(false);
        const state = gl.clientWaitSync(fence, 0, 0);
        if (state === gl.TIMEOUT_EXPIRED) return setTimeout(look, 2);
        gl.deleteSync(fence);
        told(state !== gl.WAIT_FAILED);
      };
      setTimeout(look, 0);
    });
  }

  /** Put the newest frame into the scene. */
  _take() {
    if (!this._next) return;
    const { header, buffers } = this._next;
    this._next = null;
    this._header = header;
    const { world_T_ct, world_T_ct_raw } = header;
    this._volume.setPoses(world_T_ct, world_T_ct && world_T_ct_raw); // where it is lost, the raw one is old as well
    this._frame.set(header, buffers);
    this._arm.set(header.links ?? []);
    this._trail.set(buffers.trail ?? new Float32Array(0));
    this._target.set(header.target, header.world_T_image);
    this._view.see(header, this._volume);
    this._words.note(absent(header, this._hasVolume), true);
  }

  _labels() {
    const labels = this._volume.letters.map(({ text, ct }) => ({
      text,
      world: this._volume.toWorld(ct),
      colour: INK.white,
    }));
    if (this._target.label) labels.push({ ...this._target.label, colour: INK.yellow, beside: true });
    return labels.filter(({ world }) => world);
  }
}

/** What is missing in the picture and why; "" where everything is there. */
function absent(header, hasVolume) {
  const why = [];
  if (!header.world_T_image) why.push("The probe is not tracked: no frame, no plane.");
  if (!hasVolume) why.push("No volume is loaded.");
  else if (!header.world_T_ct) why.push(`Volume hidden, its pose is not known: ${header.reason || header.status}.`);
  return why.join(" ");
}

function shown(object) {
  for (let part = object; part; part = part.parent) if (!part.visible) return false;
  return true;
}

function rendererOn(canvas, element) {
  const wanted = { alpha: false, antialias: false, stencil: false, powerPreference: "high-performance" };
  const context = canvas.getContext("webgl2", wanted);
  if (!context) {
    const message =
      "no WebGL: this browser offers no WebGL 2 here, so there is no 3D view; pictures and plots stay live";
    element.textContent = message[0].toUpperCase() + message.slice(1) + ".";
    throw new Error(message);
  }
  THREE.ColorManagement.enabled = false;
  const renderer = new THREE.WebGLRenderer({ canvas, context, ...wanted });
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace; // colours are written as they are
  renderer.setClearColor(GROUND);
  return renderer;
}
