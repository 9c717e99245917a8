// Who may ask: API keys for digest authentication, service accounts for bearer tokens.

import { field, h, plain, say, show, table } from "../dom.js";
import { all, call } from "../api.js";
import { ask } from "../dialog.js";
import { time } from "../words.js";

const ROLES = ["ORG_READ_ONLY", "ORG_MEMBER", "ORG_GROUP_CREATOR", "ORG_OWNER"];

export function keys(place, session) {
  const org = `/api/atlas/v2/orgs/${session.orgId}`;
  const shown = h("div", {});
  const made = h("div", { role: "status" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const kind = h("select", { id: "kind" }, h("option", { value: "key" }, "API key"), h("option", { value: "account" }, "Service account"));
  const name = h("input", { type: "text", id: "name", required: true, maxlength: "64", autocomplete: "off" });
  const role = h("select", { id: "role" }, ROLES.map((value) => h("option", { value }, value)));

  async function load() {
    const [found, accounts] = await Promise.all([all(`${org}/apiKeys`), all(`${org}/serviceAccounts`)]);
    const button = (what, remove) => h("button", { type: "button", class: "danger", "aria-label": `Revoke ${what}`, onclick: () => revoke(what, remove) }, "Revoke");
    show(shown, h("h2", {}, "API keys"),
      table("API keys", ["Public key", "For", "Roles", "Action"], found.map((key) => [key.publicKey, key.desc,
        key.roles.map(({ roleName }) => roleName).join(", "), button(key.publicKey, `${org}/apiKeys/${key.id}`)])),
      h("h2", {}, "Service accounts"),
      table("Service accounts", ["Client ID", "Name", "Roles", "Secret expires", "Action"], accounts.map((account) => [account.clientId, account.name,
        account.roles.join(", "), time(account.secrets[0]?.expiresAt), button(account.clientId, `${org}/serviceAccounts/${account.clientId}`)])));
  }

  const revoke = (what, path) => ask({
    title: `Revoke ${what}`, verb: "Revoke", dangerous: true, lines: ["Its users lose access at once, sessions of this dashboard included."],
    act: async () => {
      await call("DELETE", path);
      say(`${what} is revoked.`);
      await load();
    },
  });

  async function submit(event) {
    event.preventDefault();
    problem.hidden = true;
    try {
      const isKey = kind.value === "key";
      const answer = isKey
        ? await call("POST", `${org}/apiKeys`, { desc: name.value, roles: [role.value] })
        : await call("POST", `${org}/serviceAccounts`, { name: name.value, description: name.value, roles: [role.value], secretExpiresAfterHours: 8760 });
      const [id, secret] = isKey ? [answer.publicKey, answer.privateKey] : [answer.clientId, answer.secrets[0].secret];
      show(made, h("div", { class: "card" }, h("h3", {}, "Its secret, shown only now"),
        h("pre", { tabindex: "0", "aria-label": "Key and secret" }, `${id}\n${secret}`)));
      name.value = "";
      await load();
    } catch (error) {
      problem.textContent = plain(error.message);
      problem.hidden = false;
    }
  }

  place.replaceChildren(h("h1", {}, "Keys"), shown, made, h("form", { class: "card", onsubmit: submit }, h("h2", {}, "Make one"),
    field("Kind", kind), field("What it is for", name), field("Role", role), problem,
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Create"))));
  load().catch((error) => show(shown, h("p", { class: "problem" }, error.message)));
}
