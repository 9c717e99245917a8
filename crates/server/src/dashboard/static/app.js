// Which page is shown, and to whom.

import { h, say, show } from "./dom.js";
import { call, get, listen, ApiError, Unreachable } from "./api.js";
import { signIn } from "./pages/sign-in.js";
import { home } from "./pages/home.js";
import { migration } from "./pages/migration.js";
import { create } from "./pages/create.js";
import { hosts } from "./pages/hosts.js";
import { clusters } from "./pages/clusters.js";
import { keys } from "./pages/keys.js";
import { audit } from "./pages/audit.js";

const PAGES = [
  { path: /^\/$/, name: "Migrations", open: home, link: "#/" },
  { path: /^\/create$/, name: "New migration", open: create, link: "#/create" },
  { path: /^\/migrations\/([0-9a-f]{24})\/([0-9a-f]{24})$/, name: "Migration", open: migration },
  { path: /^\/hosts$/, name: "Hosts", open: hosts, link: "#/hosts" },
  { path: /^\/clusters$/, name: "Clusters", open: clusters, link: "#/clusters" },
  { path: /^\/keys$/, name: "Keys", open: keys, link: "#/keys" },
  { path: /^\/audit$/, name: "Audit", open: audit, link: "#/audit" },
];

const main = document.getElementById("main");
const top = document.getElementById("top");
let session = null;
let leave = () => {};

function current() {
  const path = location.hash.startsWith("#/") ? location.hash.slice(1) : "/";
  for (const page of PAGES) {
    const found = page.path.exec(path);
    if (found) return { page, parts: found.slice(1) };
  }
  return null;
}

async function signOut() {
  try {
    await call("DELETE", "/api/limosa/v1/session");
  } catch (error) {
    if (error instanceof Unreachable) { say(error.message); return; }
  }
  session = null;
  route();
}

function header(page) {
  show(top, session && h("div", { class: "bar" },
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/ui/icon.svg", alt: "", width: "28", height: "28" }), "Limosa"),
    h("nav", { "aria-label": "Pages" }, h("ul", {}, PAGES.filter(({ link }) => link).map(({ link, name, open }) =>
      h("li", {}, h("a", { href: link, "aria-current": page?.open === open ? "page" : null }, name))))),
    h("div", { class: "who" }, h("span", { class: "hint" }, session.name),
      h("button", { type: "button", onclick: signOut }, "Sign out"))));
}

function route() {
  leave();
  leave = () => {};
  listen(session);
  const place = h("div", { class: "page" });
  main.replaceChildren(place);
  if (!session) {
    header(null);
    document.title = "Sign in – Limosa";
    signIn(place, (signedIn) => { session = signedIn; route(); });
    return;
  }
  const found = current();
  header(found?.page);
  document.title = `${found?.page.name ?? "Not found"} – Limosa`;
  if (!found) {
    show(place, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "To the migrations")));
    return;
  }
  leave = found.page.open(place, session, ...found.parts) ?? leave;
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

document.addEventListener("visibilitychange", () => listen(session));
window.addEventListener("hashchange", () => { if (location.hash !== "#main") route(); });
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("limosa:signed-out", () => {
  if (!session) return;
  session = null;
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  route();
  say("Your session has ended. Sign in again to continue.");
});

async function begin() {
  for (;;) {
    try {
      session = await get("/api/limosa/v1/session");
      break;
    } catch (error) {
      if (error instanceof ApiError) break;
      show(main, h("p", {}, "The server doesn't answer; trying again."));
      await new Promise((done) => { setTimeout(done, 2000); });
    }
  }
  route();
}

begin();
