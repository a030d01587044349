// SPDX-License-Identifier: Apache-2.0
// Three orthogonal slices of the volume (niivue), radiological: the patient's right on the left of the picture.
import { inWords } from "./geometry.js";
import { INK } from "./palette.js";
import { labelTable, swapLpsRas } from "./mpr_frames.js";

const LABELS_OPACITY = 0.3;
const LEAST_MM = 0.3; // a centre that moved less is not drawn again
const REST = 2; // times as long as a draw took, before the next
const CLICK_PX = 5;
const FACE = "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";

/** The pane with the slices. niivue is loaded when it is opened first. */
export class Slices {
  /** @throws Error "no WebGL: ..." where the browser offers none. */
  constructor(element) {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error(
        "no WebGL: this browser offers no WebGL 2 here, so there are no slices; pictures and plots stay live",
      );
    }
    this._pane = element;
    this._picked = () => {};
    this._follow = true;
    this._centre = this._drawn = null;
  }

  /** Show the volume of a scene's header; throws where there is none or it cannot be fetched. */
  async open(scene) {
    if (!scene?.volume) throw new Error("No volume is loaded, so there are no slices.");
    this._inPatient = scene.volume.in_patient;
    this._build();
    this._say("Loading the volume …");
    try {
      const [module, image, labels] = await Promise.all([
        import("../vendor/niivue/index.js"),
        fetched(scene.volume.url),
        scene.volume.labels_url ? fetched(scene.volume.labels_url).catch(() => null) : null,
      ]);
      if (!this._box) return; // closed meanwhile
      await this._load(module, scene, image, labels);
      this._say("");
    } catch (error) {
      this._say(`No slices: ${error.message || error}`);
      throw error;
    }
    this._ask();
  }

  /** Cross the slices at a point of ct, LPS mm; a person who has just chosen another place keeps it. */
  setCentre(ct) {
    this._centre = ct;
    if (this._follow) this._ask();
  }

  /** Told the point of ct, LPS mm, at each click. */
  onPick(callback) {
    this._picked = callback;
  }

  /** The crossing of the slices, LPS mm. */
  get centre() {
    const { niivue } = this;
    return niivue ? swapLpsRas(Array.from(niivue.frac2mm(niivue.scene.crosshairPos, 0, true)).slice(0, 3)) : null;
  }

  resize() {
    this.niivue?.resizeListener();
  }

  close() {
    clearTimeout(this._timer);
    this.niivue?.cleanup();
    this.niivue?.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this._box?.remove();
    this.niivue = this._box = this._timer = null;
  }

  _build() {
    this.close();
    this._box = styled("div", { position: "absolute", inset: "0", background: "#000" });
    const holder = styled("div", { position: "absolute", inset: "0 0 40px" });
    this._canvas = styled("canvas", { width: "100%", height: "100%", outline: "none" });
    holder.append(this._canvas);
    const foot = styled("div", {
      position: "absolute",
      left: "8px",
      right: "8px",
      bottom: "0",
      height: "40px",
      display: "flex",
      alignItems: "center",
      justifyContent: "space-between",
      gap: "10px",
      color: INK.light,
      font: `14px ${FACE}`,
    });
    this._where = styled("span", { fontVariantNumeric: "tabular-nums" });
    this._labels = pushButton("Labels", () => this._setLabels(this._labels.getAttribute("aria-pressed") !== "true"));
    this._labels.hidden = true;
    this._button = pushButton("Follow the frame", () => this._setFollow(!this._follow));
    const buttons = styled("span", { display: "flex", gap: "6px" });
    buttons.append(this._labels, this._button);
    foot.append(this._where, buttons);
    this._words = styled("div", {
      position: "absolute",
      inset: "0",
      display: "none",
      alignItems: "center",
      justifyContent: "center",
      padding: "16px",
      textAlign: "center",
      color: INK.light,
      font: `16px ${FACE}`,
      background: "#000c",
      pointerEvents: "none",
    });
    this._box.append(holder, foot, this._words);
    this._pane.replaceChildren(this._box);
    this._setFollow(true);
  }

  async _load({ Niivue, NVImage, SHOW_RENDER, SLICE_TYPE, DRAG_MODE }, scene, image, labels) {
    const {
      window: [cal_min, cal_max],
    } = scene.volume;
    this.niivue = new Niivue({
      isRadiologicalConvention: true, // the patient's right on the left
      isSliceMM: true, // along the patient's axes, also where the voxels are not
      sliceType: SLICE_TYPE.MULTIPLANAR,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      sagittalNoseLeft: true,
      multiplanarPadPixels: 4,
      isOrientationTextVisible: scene.volume.in_patient,
      showAllOrientationMarkers: true,
      crosshairColor: [0.94, 0.89, 0.26, 0.8],
      crosshairWidthUnit: "mm",
      crosshairGap: 6,
      fontColor: [1, 1, 1, 1],
      backColor: [0, 0, 0, 1],
      dragMode: DRAG_MODE.contrast,
      dragAndDropEnabled: false, // nothing from outside
      logLevel: "error",
    });
    this._skipWhileHidden();
    await this.niivue.attachToCanvas(this._canvas, false);
    this.niivue.addVolume(
      await NVImage.loadFromUrl({ url: image, name: "volume.nii.gz", colormap: "gray", cal_min, cal_max }),
    );
    if (labels && scene.organs?.length) {
      const overlay = await NVImage.loadFromUrl({ url: labels, name: "labels.nii.gz", opacity: LABELS_OPACITY });
      overlay.setColormapLabel(labelTable(scene.organs));
      this.niivue.addVolume(overlay);
      this._labels.hidden = false;
      this._labels.setAttribute("aria-pressed", "true");
    }
    this.niivue.onLocationChange = () => this._tell();
    this._listen();
    this._drawn = null;
    this._tell();
  }

  /** niivue also draws when its pane is hidden and has no size, which WebGL refuses. */
  _skipWhileHidden() {
    const { niivue } = this;
    const draw = niivue.drawScene.bind(niivue);
    niivue.drawScene = () => (this._pane.clientWidth ? draw() : "");
  }

  /** A click chooses; a drag only looks around. Both hold the crossing where it is. */
  _listen() {
    let from = null;
    this._canvas.addEventListener(
      "pointerdown",
      (event) => (from = event.button ? null : [event.clientX, event.clientY]),
    );
    this._canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const moved = Math.hypot(event.clientX - from[0], event.clientY - from[1]);
      from = null;
      this._setFollow(false);
      if (moved <= CLICK_PX) setTimeout(() => this._picked(this.centre)); // niivue has moved its crosshair by then
    });
  }

  _setLabels(on) {
    this._labels.setAttribute("aria-pressed", String(on));
    this.niivue.setOpacity(1, on ? LABELS_OPACITY : 0);
  }

  _setFollow(on) {
    this._follow = on;
    this._button.setAttribute("aria-pressed", String(on));
    this._drawn = null;
    if (on) this._ask();
  }

  /** Draw at the newest centre, one at a time, with rests. */
  _ask() {
    if (this._timer || !this.niivue?.volumes.length) return;
    this._timer = setTimeout(() => {
      const begun = performance.now();
      const drawn = this._follow && this._move();
      const rest = drawn ? Math.max(60, REST * (performance.now() - begun)) : 60;
      this._timer = setTimeout(() => {
        this._timer = null;
        if (this._follow && this._centre !== this._drawn) this._ask();
      }, rest);
    });
  }

  _move() {
    const [to, from] = [this._centre, this._drawn];
    if (!to || !this._pane.clientWidth) return false;
    this._drawn = to;
    if (from && Math.hypot(...to.map((value, k) => value - from[k])) < LEAST_MM) return false;
    const { niivue } = this;
    niivue.scene.crosshairPos = niivue.mm2frac(swapLpsRas(to), 0, true);
    niivue.drawScene();
    settle(niivue.gl);
    this._tell();
    return true;
  }

  _tell() {
    const words = this.centre ? `${inWords(this.centre, this._inPatient)} mm` : "";
    if (this._where.textContent !== words) this._where.textContent = words;
  }

  _say(words) {
    this._words.textContent = words;
    this._words.style.display = words ? "flex" : "none";
  }
}

function styled(tag, style) {
  const element = document.createElement(tag);
  Object.assign(element.style, style);
  return element;
}

function pushButton(words, pressed) {
  const button = styled("button", { minHeight: "34px" });
  button.type = "button";
  button.textContent = words;
  button.addEventListener("click", pressed);
  return button;
}

/** Wait until it is drawn: else the time that it takes would not be seen, and draws would queue. */
function settle(gl) {
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
}

/** Content of a file of the server, to which the page's cookie gives access. */
async function fetched(url) {
  const place = new URL(url, location.href);
  if (place.origin !== location.origin) throw new Error("the volume lies on another machine");
  const answer = await fetch(place);
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 200) || `the server answers ${answer.status}`);
  return answer.arrayBuffer();
}
