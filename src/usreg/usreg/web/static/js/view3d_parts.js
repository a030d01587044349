// SPDX-License-Identifier: Apache-2.0
// Small parts of the 3D scene: poses, axes, the arm, the sweep's trail, the target.
import * as THREE from "../vendor/three/three.module.js";
import { INK } from "./palette.js";
import { bodyMaterial, lines, throughAll } from "./view3d_materials.js";
import { footOnPlane } from "./view3d_math.js";

const AXES = [INK.vermilion, INK.green, INK.sky]; // x, y, z
const TRAIL_POINTS = 4096;
const JOINTS = 64;
const TARGET_MM = 4;
const PROBE_MM = 55;
const TARGET_ORDER = 6000; // last, so that it is seen wherever it lies

/** Place an object by 16 numbers, row by row. */
export function setPose(object, pose) {
  object.matrixAutoUpdate = false;
  object.matrix.set(...pose);
  object.matrixWorldNeedsUpdate = true;
}

/** Axes x, y, z (vermilion, green, sky) of a length, mm, at a point; dashed for what is not smoothed. */
export function axesOf(lengthMm, origin = [0, 0, 0], dashed = false) {
  const group = new THREE.Group();
  AXES.forEach((colour, k) => {
    const end = [...origin];
    end[k] += lengthMm;
    if (dashed) group.add(lines([origin, end], colour, { dashMm: lengthMm / 9, chain: true }));
    else group.add(rod(origin, end, lengthMm / 45, colour));
  });
  return group;
}

function rod(from, to, radius, colour) {
  const mesh = new THREE.Mesh(new THREE.CylinderGeometry(radius, radius, 1, 6, 1), bodyMaterial(colour));
  mesh.matrixAutoUpdate = false;
  placeBetween(mesh.matrix, new THREE.Vector3(...from), new THREE.Vector3(...to));
  return mesh;
}

const UP = new THREE.Vector3(0, 1, 0);
const turn = new THREE.Quaternion();
const middle = new THREE.Vector3();
const along = new THREE.Vector3();
const size = new THREE.Vector3();

/** Matrix of a cylinder of height 1 that then reaches from one point to another. */
function placeBetween(matrix, from, to) {
  along.subVectors(to, from);
  const length = Math.max(along.length(), 1e-6);
  turn.setFromUnitVectors(UP, along.divideScalar(length));
  matrix.compose(middle.addVectors(from, to).multiplyScalar(0.5), turn, size.set(1, length, 1));
}

/** The last of a chain's points drawn back along its link, to at most half way. */
function shortenLast(points, byMm) {
  const [before, last] = points.slice(-2);
  if (!last) return;
  const length = last.distanceTo(before);
  last.lerp(before, Math.min(0.5, byMm / Math.max(length, 1e-6)));
}

/** The arm as a chain: a ball at each link's origin, a tube between neighbours. */
export class Arm {
  constructor() {
    const material = bodyMaterial([150, 160, 170]);
    this._tubes = new THREE.InstancedMesh(new THREE.CylinderGeometry(1, 1, 1, 12, 1, true), material, JOINTS);
    this._balls = new THREE.InstancedMesh(new THREE.SphereGeometry(1.25, 14, 10), material, JOINTS);
    this.group = new THREE.Group().add(this._tubes, this._balls);
    for (const mesh of [this._tubes, this._balls]) mesh.frustumCulled = false;
    this.set([]);
  }

  /** Links [{name, world_T_link}] from the base to the probe. */
  set(links) {
    const points = links.slice(0, JOINTS).map(({ world_T_link: p }) => new THREE.Vector3(p[3], p[7], p[11]));
    shortenLast(points, PROBE_MM); // there the probe's own symbol stands
    const length = points.reduce((sum, p, k) => sum + (k ? p.distanceTo(points[k - 1]) : 0), 0);
    const radius = Math.min(34, Math.max(3, 0.022 * length));
    const matrix = new THREE.Matrix4();
    points.forEach((point, k) => {
      const thin = radius * (1 - (0.5 * k) / points.length);
      this._balls.setMatrixAt(k, matrix.makeScale(thin, thin, thin).setPosition(point));
      if (!k) return;
      placeBetween(matrix, points[k - 1], point);
      this._tubes.setMatrixAt(k - 1, matrix.scale(size.set(thin, 1, thin)));
    });
    this._balls.count = points.length;
    this._tubes.count = Math.max(0, points.length - 1);
    this._balls.instanceMatrix.needsUpdate = this._tubes.instanceMatrix.needsUpdate = true;
    this.group.visible = points.length > 1;
  }
}

/** Where the transducer's middle has been, (K, 3) world mm. */
export class Trail {
  constructor() {
    this._positions = new THREE.BufferAttribute(new Float32Array(3 * TRAIL_POINTS), 3);
    const geometry = new THREE.BufferGeometry().setAttribute("position", this._positions);
    geometry.setDrawRange(0, 0);
    this.line = new THREE.Line(geometry, new THREE.LineBasicMaterial({ color: INK.yellow }));
    this.line.frustumCulled = false;
  }

  /** @param {Float32Array} points the newest are kept where there are too many */
  set(points) {
    const kept = points.subarray(Math.max(0, points.length - 3 * TRAIL_POINTS));
    this._positions.array.set(kept);
    this._positions.needsUpdate = true;
    this.line.geometry.setDrawRange(0, kept.length / 3);
  }
}

/** The target: a ball, its foot on the image plane, a line between them; seen through everything. */
export class Target {
  constructor() {
    const ball = new THREE.SphereGeometry(1, 16, 12);
    this._ball = throughAll(new THREE.Mesh(ball, bodyMaterial(INK.yellow)), TARGET_ORDER);
    this._ball.scale.setScalar(TARGET_MM);
    this._foot = throughAll(new THREE.Mesh(ball, bodyMaterial(INK.yellow)), TARGET_ORDER);
    this._foot.scale.setScalar(0.4 * TARGET_MM);
    this._line = throughAll(
      lines(
        [
          [0, 0, 0],
          [0, 0, 0],
        ],
        INK.yellow,
        { chain: true },
      ),
      TARGET_ORDER,
    );
    this._line.frustumCulled = false;
    this.group = new THREE.Group().add(this._ball, this._foot, this._line);
    this.label = null;
    this.set(null, null);
  }

  /** @param target the header's target or null @param world_T_image pose of the frame or null */
  set(target, world_T_image) {
    const world = target?.world;
    this.group.visible = Boolean(world);
    this.label = null;
    if (!world) return;
    this._ball.position.set(...world);
    const reaches = world_T_image && Number.isFinite(target.distance_mm);
    this._foot.visible = this._line.visible = Boolean(reaches);
    if (!reaches) return;
    const foot = footOnPlane(world_T_image, world, target.distance_mm);
    this._foot.position.set(...foot);
    const positions = this._line.geometry.attributes.position;
    positions.array.set([...world, ...foot]);
    positions.needsUpdate = true;
    this.label = { text: `${Math.abs(target.distance_mm).toFixed(1)} mm`, world };
  }
}
