// SPDX-License-Identifier: Apache-2.0
// The ultrasound frame in the room: its sector as a textured piece of plane, outline, axes, marker, and a plain probe.
import * as THREE from "../vendor/three/three.module.js";
import { pixelToImage } from "./geometry.js";
import { INK } from "./palette.js";
import { bodyMaterial, disposeTree, lines, pictureMaterial, throughAll } from "./view3d_materials.js";
import { pairs, pixelToUv } from "./view3d_math.js";
import { axesOf, setPose } from "./view3d_parts.js";

const OVER = 0.6; // how much of the picture is seen through what lies in front of it
const OVER_ORDER = 5000; // after the organs
const PROBE_MM = { thick: 22, high: 70 };

/** Everything that moves with `us_image`. */
export class FrameParts {
  constructor() {
    this.group = new THREE.Group();
    this.group.visible = false;
    this._picture = { value: null };
    this._materials = [pictureMaterial(this._picture), pictureMaterial(this._picture, OVER)];
    this._texture = null;
    this._made = null; // what the geometry was made for
  }

  /** A frame's header and buffers; hidden where it is not tracked. */
  set(header, buffers) {
    this.group.visible = Boolean(header.world_T_image);
    if (!this.group.visible) return;
    setPose(this.group, header.world_T_image);
    this._fit(header, buffers.outline);
    this._show(header, buffers.image);
  }

  _show({ width, height }, image) {
    const before = this._texture?.image;
    if (before?.width !== width || before?.height !== height) {
      this._texture?.dispose();
      this._texture = new THREE.DataTexture(image, width, height, THREE.RedFormat, THREE.UnsignedByteType);
      this._texture.unpackAlignment = 1; // rows of any width
      this._texture.minFilter = this._texture.magFilter = THREE.LinearFilter;
      this._picture.value = this._texture;
    }
    this._texture.image.data = image;
    this._texture.needsUpdate = true;
  }

  /** Geometry is made again only when the probe, the depth or the size of the picture changes. */
  _fit(header, sector) {
    const { width, height, pixel_to_mm, skin_px, marker_px, marker_radius_px } = header;
    const key = JSON.stringify([width, height, pixel_to_mm, skin_px, sector?.length ?? 0, sector?.[0], sector?.at(-1)]);
    if (key === this._made) return;
    this._made = key;
    disposeTree(this.group);
    this.group.clear();
    const rectangle = [
      [-0.5, -0.5],
      [width - 0.5, -0.5],
      [width - 0.5, height - 0.5],
      [-0.5, height - 0.5],
    ];
    const points = sector?.length >= 6 ? pairs(sector) : rectangle;
    const inMm = (pixel) => pixelToImage(pixel_to_mm, pixel);
    const geometry = sectorGeometry(points, inMm, width, height);
    const [plane, over] = this._materials.map((material) => new THREE.Mesh(geometry, material));
    over.renderOrder = OVER_ORDER;
    const outline = throughAll(lines(points.map(inMm), INK.sky, { closed: true }), OVER_ORDER + 1);
    this.group.add(plane, over, outline);
    const xs = points.map((pixel) => inMm(pixel)[0]);
    const span = Math.max(...xs) - Math.min(...xs);
    this.group.add(axesOf(0.2 * span));
    if (marker_px) this.group.add(markerBall(inMm(marker_px), marker_radius_px * pixel_to_mm[0][0]));
    if (skin_px) this.group.add(probeBody(inMm(skin_px), inMm, points));
  }
}

/** The piece of the plane inside an outline in pixels; texture coordinates belong to pixel centres. */
function sectorGeometry(points, inMm, width, height) {
  const contour = points.map(([column, row]) => new THREE.Vector2(column, row));
  const faces = THREE.ShapeUtils.triangulateShape(contour, []);
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points.flatMap(inMm), 3));
  const uv = points.flatMap(([column, row]) => pixelToUv(column, row, width, height));
  geometry.setAttribute("uv", new THREE.Float32BufferAttribute(uv, 2));
  geometry.setIndex(faces.flat());
  return geometry;
}

function markerBall(centre, radiusMm) {
  const ball = new THREE.Mesh(new THREE.SphereGeometry(Math.max(1.5, radiusMm), 12, 8), bodyMaterial(INK.orange));
  ball.position.set(...centre);
  return ball;
}

/** A symbol of the probe: as wide as the transducer's face, standing on it away from the picture. */
function probeBody(skin, inMm, points) {
  const near = points.map(inMm).filter(([, y]) => y <= skin[1] + 1);
  const xs = near.map(([x]) => x);
  const wide = near.length > 1 ? Math.max(...xs) - Math.min(...xs) : 40;
  const half = Math.min(Math.max(wide, 16), 90) / 2;
  const profile = [
    [-half, 2],
    [half, 2],
    [half, -14],
    [0.45 * half, -34],
    [0.45 * half, -PROBE_MM.high],
  ];
  profile.push([-0.45 * half, -PROBE_MM.high], [-0.45 * half, -34], [-half, -14]);
  const shape = new THREE.Shape(profile.map(([x, y]) => new THREE.Vector2(x, y)));
  const geometry = new THREE.ExtrudeGeometry(shape, { depth: PROBE_MM.thick, bevelEnabled: false });
  geometry.translate(skin[0], skin[1] - 4, -PROBE_MM.thick / 2);
  return new THREE.Mesh(geometry, bodyMaterial([196, 204, 212]));
}
