// Makes elements, and brings what is shown into line with what should be: what didn't change stays, with its focus.

const hostile = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/** A text that others chose, with what can't be seen, or turns the direction of writing, written out. */
export const plain = (text) => text.replace(hostile, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

function make(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element[name] = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(typeof child === "string" ? plain(child) : child);
  }
  return element;
}

export function h(tag, props, ...children) {
  return make(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return make(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

const HANDLERS = ["onclick", "onsubmit", "onchange", "oninput"];

function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whether it is open is the user's business.
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) old[name] = fresh[name];
  children(old, [...fresh.childNodes]);
}

function children(parent, fresh) {
  const old = [...parent.childNodes];
  fresh.forEach((node, at) => (at < old.length ? patch(old[at], node) : parent.append(node)));
  old.slice(fresh.length).forEach((node) => node.remove());
}

/** Shows `nodes` in `parent`. */
export function show(parent, ...nodes) {
  children(parent, nodes.flat(Infinity).filter(Boolean));
}

/** Says it to everyone, those who listen included. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = plain(text);
  place.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { place.hidden = true; }, 6000);
}

/** A labelled field of a form. */
export function field(label, control, hint) {
  control.id ||= `field-${label.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control,
    hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint));
}

/** A table that may be wider than the screen. */
export function table(caption, head, rows) {
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}
