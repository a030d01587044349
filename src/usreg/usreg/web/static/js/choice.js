// SPDX-License-Identifier: Apache-2.0
/** Named points of the volume in a list. */

import { h } from "./dom.js";

/** A list of named landmarks to choose from. */
export function landmarkChoice(title) {
  const select = h("select", { title, "aria-label": title });
  const fill = (landmarks) => {
    const key = landmarks.map(({ name }) => name).join();
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    const words = landmarks.length ? "choose a landmark …" : "this volume has no landmarks";
    select.replaceChildren(
      h("option", { value: "" }, words),
      ...landmarks.map(({ name }) => h("option", { value: name }, name.replaceAll("_", " "))),
    );
    select.dataset.off = landmarks.length ? "" : "yes";
  };
  return { select, fill };
}
