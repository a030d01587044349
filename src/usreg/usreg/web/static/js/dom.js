// SPDX-License-Identifier: Apache-2.0
/** Few lines in place of a framework. */

/** @returns {HTMLElement} an element; `on...` are listeners, the rest attributes (false and null: left out). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** Set the words of an element only where they change: a live page must not lay itself out for nothing. */
export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** Replace the children of an element only where `key` differs from the last one. */
export function refill(element, key, make) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...make());
}

/** A number with digits, or a dash. */
export function shown(value, digits = 1, unit = "") {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits) + unit;
}

/** A short message at the edge; goes by itself. The same words are shown once. */
export function toast(words, kind = "info") {
  const there = [...$("toasts").children].find((element) => element.textContent === words);
  const element = there ?? h("p", { class: `toast ${kind}` }, words);
  $("toasts").append(element);
  clearTimeout(element.timer);
  element.timer = setTimeout(() => element.remove(), kind === "bad" ? 9000 : 4000);
}

/** Ask before something that cannot be taken back. @returns {Promise<boolean>} */
export function confirmed(question, yes) {
  const dialog = $("confirm");
  return new Promise((resolve) => {
    const answer = (value) => () => {
      dialog.close(value);
    };
    dialog.replaceChildren(
      h("p", {}, question),
      h(
        "div",
        { class: "row end" },
        h("button", { onclick: answer("") }, "Cancel"),
        h("button", { class: "danger", onclick: answer("yes") }, yes),
      ),
    );
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
}
