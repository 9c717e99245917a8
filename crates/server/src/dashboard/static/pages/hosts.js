// Migration hosts, what they announce, and the link token with which they join.

import { h, say, show, table } from "../dom.js";
import { call, follow, get } from "../api.js";
import { ask } from "../dialog.js";
import { bytes, count } from "../words.js";

export function hosts(place, session) {
  const org = `/api/atlas/v2/orgs/${session.orgId}/liveMigrations`;
  const shown = h("div", {});
  const token = h("div", { role: "status" });
  const make = () => ask({
    title: "Create the link token", verb: "Create",
    lines: ["Agents join with it. It is shown once, now; the organization has one at a time."],
    act: async () => {
      const { linkToken } = await call("POST", `${org}/linkTokens`, {});
      show(token, h("div", { class: "card" }, h("h3", {}, "The link token, shown only now"), h("pre", { tabindex: "0", "aria-label": "Link token" }, linkToken),
        h("p", {}, "On the migration host, with the token in LIMOSA_LINK_TOKEN:"),
        h("pre", { tabindex: "0", "aria-label": "Command" }, `limosa agent --server ${location.origin} --host-name mover1 --source NAME=@/etc/limosa/source-uri`)));
    },
  });
  const revoke = () => ask({
    title: "Revoke the link token", verb: "Revoke", dangerous: true,
    lines: ["Agents that joined with it are shut out at once."],
    act: async () => {
      await call("DELETE", `${org}/linkTokens`);
      token.replaceChildren();
      say("The link token is revoked.");
    },
  });
  place.replaceChildren(h("h1", {}, "Hosts"), shown,
    h("section", { class: "card" }, h("h2", {}, "Link"), h("p", {}, "An agent joins this server with the organization's link token and announces the deployments that it can read."),
      h("div", { class: "actions" }, h("button", { type: "button", onclick: make }, "Create link token"),
        h("button", { type: "button", class: "danger", onclick: revoke }, "Revoke link token")), token));
  const following = follow(() => get(`${org}/availableProjects`), (projects, error) => {
    if (error) { show(shown, h("p", { class: "problem" }, error.message)); return; }
    show(shown, projects.length === 0
      ? h("p", { class: "card empty" }, "No agent reported within the last minute. Create a link token and start one.")
      : projects.map((project) => h("section", {}, h("h2", {}, `Group ${project.name}`),
        h("p", {}, "Hosts that reported within the last minute: ", h("strong", {}, project.migrationHosts.join(", "))),
        table(`Deployments of ${project.name}`, ["Deployment", "MongoDB", "Size", "Oplog", "TLS", "Agent"], project.deployments.map((d) =>
          [d.name, d.mongoDBVersion, bytes(d.dbSizeBytes), `${count(d.oplogSizeMB)} MB`, d.tlsEnabled ? "yes" : "no", d.agentVersion])))));
  }, 5000);
  return following.stop;
}
