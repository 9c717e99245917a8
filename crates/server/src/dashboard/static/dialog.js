// Questions before something is done that someone might regret.

import { h, plain } from "./dom.js";
import { ApiError, Unreachable } from "./api.js";

/**
 * Asks. `lines` are shown, `checks` must all be ticked, `word` must be typed. `act` is carried out while the dialog
 * stays; what it throws is shown in it.
 */
export function ask({ title, lines = [], checks = [], word, wordLabel, extra, verb, dangerous, act }) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const go = h("button", { type: "submit", class: dangerous ? "danger" : "primary" }, verb);
  const boxes = checks.map((text, at) => ({ text, box: h("input", { type: "checkbox", id: `check-${at}`, onchange: ready }) }));
  const typed = word === undefined ? null : h("input", { type: "text", id: "typed", autocomplete: "off", spellcheck: "false", oninput: ready });
  function ready() {
    go.disabled = boxes.some(({ box }) => !box.checked) || (typed !== null && typed.value.trim() !== word);
  }
  const form = h("form", { method: "dialog", onsubmit: carryOut },
    h("h2", { id: "dialog-title" }, title),
    lines.filter(Boolean).map((line) => h("p", {}, line)),
    boxes.length > 0 && h("fieldset", {}, h("legend", {}, "Before you continue"),
      boxes.map(({ text, box }) => h("div", { class: "check" }, box, h("label", { for: box.id }, text)))),
    extra,
    typed && h("div", { class: "field" }, h("label", { for: "typed" }, wordLabel), typed),
    problem,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Back"), go));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  dialog.addEventListener("close", () => dialog.remove());
  async function carryOut(event) {
    event.preventDefault();
    go.disabled = true;
    try {
      await act(form);
      dialog.close();
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof Unreachable)) throw error;
      problem.textContent = plain(error.message);
      problem.hidden = false;
      ready();
    }
  }
  document.body.append(dialog);
  ready();
  dialog.showModal();
}
