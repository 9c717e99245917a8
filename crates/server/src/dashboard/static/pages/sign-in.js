// The way in: an API key or a service account.

import { field, h, plain, show } from "../dom.js";
import { call } from "../api.js";

export function signIn(place, signedIn) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const name = h("input", { type: "text", name: "name", id: "name", autocomplete: "username", required: true, spellcheck: "false", autocapitalize: "none" });
  const secret = h("input", { type: "password", name: "secret", id: "secret", autocomplete: "current-password", required: true });
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  async function submit(event) {
    event.preventDefault();
    go.disabled = true;
    problem.hidden = true;
    try {
      signedIn(await call("POST", "/api/limosa/v1/session", { name: name.value, secret: secret.value }));
    } catch (error) {
      problem.textContent = plain(error.message);
      problem.hidden = false;
      secret.value = "";
      secret.focus();
    } finally {
      go.disabled = false;
    }
  }
  show(place, h("form", { class: "card sign-in", onsubmit: submit },
    h("img", { src: "/ui/icon.svg", alt: "", width: "48", height: "48" }),
    h("h1", {}, "Sign in to Limosa"),
    field("Public key or client ID", name),
    field("Private key or client secret", secret, "The first owner's are in bootstrap.json of the server's data directory."),
    problem,
    h("div", { class: "actions" }, go)));
  name.focus();
}
