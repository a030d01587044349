// SPDX-License-Identifier: Apache-2.0
// Where the 3D view is seen from: a first look that shows probe, plane and organs; orbiting; focus; follow the probe.
import { OrbitControls } from "../vendor/three/OrbitControls.js";
import * as THREE from "../vendor/three/three.module.js";
import { apply, pixelToImage } from "./geometry.js";
import { axis } from "./view3d_math.js";

const VIEW_DEG = 35;
const MARGIN = 1.15;
const ARM_LINKS = 3; // fewer are a tracker's: its world may lie anyhow

/** Camera and controls; `changed` is called when the picture has to be drawn again. */
export class Viewpoint {
  constructor(element, changed) {
    this.camera = new THREE.PerspectiveCamera(VIEW_DEG, 1, 5, 20000);
    this.camera.position.set(800, -800, 600);
    this.follow = false;
    this.forget();
    this._element = element;
    this._changed = changed;
    this._last = null; // centre of the sector that was followed
    this._controls = null;
    this._makeControls(new THREE.Vector3(0, 0, 1));
  }

  /** OrbitControls takes its up direction once, when it is made. */
  _makeControls(up) {
    this._controls?.dispose();
    this.camera.up.copy(up);
    const controls = new OrbitControls(this.camera, this._element);
    controls.enableDamping = false;
    controls.zoomToCursor = true;
    controls.minDistance = 20;
    controls.maxDistance = 8000;
    controls.addEventListener("change", this._changed);
    controls.addEventListener("start", () => (this._placed = "by hand"));
    this._controls = controls;
  }

  /** Aspect ratio of the pane. */
  resize(width, height) {
    this.camera.aspect = width / Math.max(1, height);
    this.camera.updateProjectionMatrix();
  }

  /** Look at the scene anew when there is something to see. */
  forget() {
    this._placed = "";
  }

  /** Follow the sector's centre; look at the frame when it first comes, and at the volume once its pose is known. */
  see(header, volume) {
    const centre = sectorCentre(header);
    const seen = volume.sphere() ? "with volume" : centre ? "frame alone" : "";
    const more = !this._placed || (this._placed === "frame alone" && seen === "with volume");
    if (seen && more) {
      this.home(header, volume);
      this._placed = seen;
    }
    if (this.follow && centre && this._last) {
      const step = new THREE.Vector3().subVectors(centre, this._last);
      if (step.lengthSq() > 0) {
        this.camera.position.add(step);
        this._controls.target.add(step);
        this._controls.update();
      }
    }
    if (centre) this._last = centre;
  }

  /**
   * The first look: the picture from the side from which it is drawn in 2D, turned and from above, so that probe and
   * depth are seen as well. Up is the room's z where an arm stands in it, else away from the patient.
   */
  home(header, volume) {
    const pose = header.world_T_image;
    const sphere = volume.sphere();
    const up = new THREE.Vector3(0, 0, 1);
    const arm = header.links?.length >= ARM_LINKS;
    if (pose && !arm) up.set(...axis(pose, 1)).negate();
    else if (!pose && sphere) up.copy(direction(volume, [0, -1, 0]));
    this._makeControls(up.normalize());
    const back = pose ? new THREE.Vector3(...axis(pose, 2)).negate() : direction(volume, [0.3, -0.6, -1]);
    back.addScaledVector(up, -back.dot(up)); // level
    if (back.lengthSq() < 0.04) back.set(...axis(pose ?? header.world_T_ct, 0));
    back.normalize().applyAxisAngle(up, 0.6).addScaledVector(up, 0.5).normalize();
    const both = sphere ? [...sphere.centre] : null;
    const at = sectorCentre(header);
    if (both && at) both.forEach((value, k) => (both[k] = 0.6 * value + 0.4 * at.getComponent(k)));
    const target = both ? new THREE.Vector3(...both) : at;
    this._lookAt(target, sphere ? sphere.radius : reach(header), back);
  }

  /** Look at the probe's picture or at the whole volume from the present side. */
  focus(what, header, volume) {
    this._placed = "by hand";
    const back = new THREE.Vector3().subVectors(this.camera.position, this._controls.target).normalize();
    const sphere = volume.sphere();
    const centre = header && sectorCentre(header);
    if (what === "probe" && centre) this._lookAt(centre, 0.75 * reach(header), back);
    else if (what === "volume" && sphere) this._lookAt(new THREE.Vector3(...sphere.centre), sphere.radius, back);
  }

  /** Turn about another point of the room from now on. */
  turnAbout(point) {
    const step = new THREE.Vector3().subVectors(point, this._controls.target);
    this.camera.position.add(step);
    this._controls.target.copy(point);
    this._controls.update();
    this._changed();
  }

  dispose() {
    this._controls.dispose();
  }

  _lookAt(target, radius, back) {
    const half = THREE.MathUtils.degToRad(VIEW_DEG / 2);
    const narrow = Math.min(half, Math.atan(Math.tan(half) * this.camera.aspect));
    this.camera.position.copy(target).addScaledVector(back, (MARGIN * radius) / Math.sin(narrow));
    this._controls.target.copy(target);
    this._controls.update();
    this._changed();
  }
}

function sectorCentre(header) {
  if (!header.world_T_image) return null;
  const pixel = [(header.width - 1) / 2, (header.height - 1) / 2];
  return new THREE.Vector3(...apply(header.world_T_image, pixelToImage(header.pixel_to_mm, pixel)));
}

function reach({ width, height, pixel_to_mm: [[a], [, d]] }) {
  return 0.6 * Math.hypot(a * width, d * height);
}

function direction(volume, ct) {
  const from = volume.toWorld([0, 0, 0]);
  return new THREE.Vector3(...volume.toWorld(ct).map((value, k) => value - from[k])).normalize();
}
