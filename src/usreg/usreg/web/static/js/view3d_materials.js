// SPDX-License-Identifier: Apache-2.0
// Shaders that a processor without a graphics card draws fast: light is computed at the vertices, pixels only filled.
import * as THREE from "../vendor/three/three.module.js";

const BODY_VERTEX = /* glsl */ `
  uniform vec3 colour;
  uniform float opacity;
  uniform float rim;
  varying vec4 shade;
  void main() {
    vec4 at = vec4(position, 1.0);
    vec3 side = normal;
    #ifdef USE_INSTANCING
      at = instanceMatrix * at;
      side = mat3(instanceMatrix) * side;
    #endif
    vec4 seen = modelViewMatrix * at;
    vec3 n = normalize(normalMatrix * side);
    float facing = abs(dot(n, normalize(-seen.xyz)));
    float light = 0.42 + 0.43 * facing + 0.15 * n.y;
    float edge = 1.0 - facing;
    shade = vec4(colour * light + rim * 0.35 * edge * edge, min(1.0, opacity * (1.0 + rim * 2.0 * edge * edge)));
    gl_Position = projectionMatrix * seen;
  }`;
const BODY_FRAGMENT = /* glsl */ `
  varying vec4 shade;
  void main() { gl_FragColor = shade; }`;
const PICTURE_VERTEX = /* glsl */ `
  varying vec2 at;
  void main() {
    at = uv;
    gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
  }`;
const PICTURE_FRAGMENT = /* glsl */ `
  uniform sampler2D picture;
  uniform float opacity;
  varying vec2 at;
  void main() { gl_FragColor = vec4(vec3(texture2D(picture, at).r), opacity); }`;

/** CSS colour or [r, g, b] of 0 to 255 as a three.js colour, as it is (no colour management). */
export function colourOf(colour) {
  return Array.isArray(colour) ? new THREE.Color(...colour.map((c) => c / 255)) : new THREE.Color(colour);
}

/** A lit surface. Below opacity 0.95 it is glass: brighter at its edges, and it hides nothing. */
export function bodyMaterial(colour, opacity = 1) {
  const glass = opacity < 0.95;
  return new THREE.ShaderMaterial({
    uniforms: { colour: { value: colourOf(colour) }, opacity: { value: opacity }, rim: { value: glass ? 1 : 0 } },
    vertexShader: BODY_VERTEX,
    fragmentShader: BODY_FRAGMENT,
    transparent: glass,
    depthWrite: !glass,
    side: THREE.FrontSide,
  });
}

/** A grey-value picture on a surface seen from both sides. Below opacity 1 it is seen through everything. */
export function pictureMaterial(picture, opacity = 1) {
  const over = opacity < 1;
  return new THREE.ShaderMaterial({
    uniforms: { picture, opacity: { value: opacity } },
    vertexShader: PICTURE_VERTEX,
    fragmentShader: PICTURE_FRAGMENT,
    side: THREE.DoubleSide,
    transparent: over,
    depthTest: !over,
    depthWrite: !over,
  });
}

/** Show an object through everything that is in front of it. */
export function throughAll(object, order) {
  object.renderOrder = order;
  object.material.transparent = true;
  object.material.depthTest = object.material.depthWrite = false;
  return object;
}

/** A line's colour, dashed or not. */
export function lineMaterial(colour, dashMm = 0) {
  const settings = { color: colourOf(colour) };
  return dashMm
    ? new THREE.LineDashedMaterial({ ...settings, dashSize: dashMm, gapSize: dashMm })
    : new THREE.LineBasicMaterial(settings);
}

/** Lines between pairs of points, [[x, y, z], ...], or along them. */
export function lines(points, colour, { dashMm = 0, closed = false, chain = false } = {}) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points.flat(), 3));
  const Kind = closed ? THREE.LineLoop : chain ? THREE.Line : THREE.LineSegments;
  const made = new Kind(geometry, lineMaterial(colour, dashMm));
  if (dashMm) made.computeLineDistances();
  return made;
}

/** A surface of its own geometry: vertices and normals (N, 3), triangles (M, 3). */
export function bodyMesh(vertices, normals, triangles, material) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(vertices, 3));
  geometry.setAttribute("normal", new THREE.BufferAttribute(normals, 3));
  geometry.setIndex(new THREE.BufferAttribute(triangles, 1));
  return new THREE.Mesh(geometry, material);
}

/** Give back what an object and its children hold on the graphics card. */
export function disposeTree(object) {
  object.traverse((part) => {
    part.geometry?.dispose();
    part.material?.dispose();
  });
}
