// SPDX-License-Identifier: Apache-2.0
// What moves with the volume: organs, its box at the smoothed and at the raw pose, letters of the patient's sides.
import * as THREE from "../vendor/three/three.module.js";
import { apply } from "./geometry.js";
import { INK } from "./palette.js";
import { bodyMaterial, bodyMesh, disposeTree, lines } from "./view3d_materials.js";
import { BOX_EDGES, bounds, boxCorners, sideLetters } from "./view3d_math.js";
import { axesOf, setPose } from "./view3d_parts.js";

const LANDMARK_MM = 1.6;

/** The volume of the session; nothing of it is drawn without a pose. */
export class VolumeParts {
  constructor() {
    this.smoothed = new THREE.Group();
    this.raw = new THREE.Group();
    this.group = new THREE.Group().add(this.smoothed, this.raw);
    this.box = null;
    this.letters = [];
    this._organs = new Map();
    this._dots = this._pose = this._sha256 = null;
    this.setPoses(null, null);
  }

  /** The session's volume or none, and its landmarks; true where it is another one: then organs come anew. */
  setScene({ volume, landmarks }) {
    const another = !volume || volume.sha256 !== this._sha256;
    if (another) this._begin(volume);
    this._mark(landmarks?.map((landmark) => landmark.ct) ?? []);
    return another;
  }

  _begin(volume) {
    this._clear();
    this._sha256 = volume?.sha256;
    if (!volume) return;
    const corners = boxCorners(volume.ct_T_index, volume.size);
    this.box = bounds(corners);
    const edges = BOX_EDGES.flat().map((corner) => corners[corner]);
    const axes = 0.18 * this.box.radius;
    this.smoothed.add(lines(edges, INK.light), axesOf(axes, this.box.centre));
    this.raw.add(
      lines(edges, INK.orange, { dashMm: 0.025 * this.box.radius }),
      axesOf(0.6 * axes, this.box.centre, true),
    );
    this.letters = volume.in_patient ? sideLetters(this.box) : []; // a tracker's frame knows no left and right
  }

  /** Draw an organ; one that comes again is left as it is. */
  addOrgan({ value, colour, opacity }, { vertices, normals, triangles }) {
    if (this._organs.has(value)) return;
    const mesh = bodyMesh(vertices, normals, triangles, bodyMaterial(colour, opacity));
    mesh.geometry.computeBoundingSphere();
    // Glass is drawn from the inside out: what lies inside a larger organ comes first.
    if (mesh.material.transparent) mesh.renderOrder = 10 + mesh.geometry.boundingSphere.radius;
    this._organs.set(value, mesh);
    this.smoothed.add(mesh);
  }

  /** Poses as 16 numbers or null: then what they place is hidden. */
  setPoses(smoothed, raw) {
    this._pose = smoothed;
    this.smoothed.visible = Boolean(smoothed);
    this.raw.visible = Boolean(raw);
    if (smoothed) setPose(this.smoothed, smoothed);
    if (raw) setPose(this.raw, raw);
  }

  /** A point of ct in the world; null while nobody knows where the volume lies. */
  toWorld(ct) {
    return this._pose && apply(this._pose, ct);
  }

  /** Centre and radius of the box in the world, mm; null without a volume or its pose. */
  sphere() {
    return this.box && this._pose ? { centre: this.toWorld(this.box.centre), radius: this.box.radius } : null;
  }

  _mark(points) {
    if (this._dots) {
      this.smoothed.remove(this._dots);
      disposeTree(this._dots);
    }
    this._dots = points.length ? landmarkDots(points) : null;
    if (this._dots) this.smoothed.add(this._dots);
  }

  _clear() {
    this._dots = null;
    for (const group of [this.smoothed, this.raw]) {
      disposeTree(group);
      group.clear();
    }
    this._organs.clear();
    this.letters = [];
    this.box = null;
  }
}

function landmarkDots(points) {
  const dots = new THREE.InstancedMesh(
    new THREE.OctahedronGeometry(LANDMARK_MM),
    bodyMaterial(INK.white),
    points.length,
  );
  points.forEach((point, k) => dots.setMatrixAt(k, new THREE.Matrix4().makeTranslation(...point)));
  dots.frustumCulled = false;
  return dots;
}
