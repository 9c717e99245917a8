// Destinations: registered with a URI that is never shown again.

import { field, h, plain, say, show, table } from "../dom.js";
import { all, call } from "../api.js";
import { ask } from "../dialog.js";

export function clusters(place) {
  const shown = h("div", {});
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const group = h("select", { id: "group" });
  const name = h("input", { type: "text", id: "name", required: true, maxlength: "64", autocomplete: "off" });
  const uri = h("input", { type: "password", id: "uri", required: true, autocomplete: "off" });

  async function load() {
    const groups = await all("/api/atlas/v2/groups");
    group.replaceChildren(...groups.map(({ id, name: text }) => h("option", { value: id }, text)));
    const lists = await Promise.all(groups.map(({ id }) => all(`/api/atlas/v2/groups/${id}/clusters`)));
    const rows = groups.flatMap((g, at) => lists[at].map((cluster) => [cluster.name, g.name, cluster.connectionStrings.standard,
      h("button", { type: "button", class: "danger", "aria-label": `Forget ${cluster.name}`, onclick: () => forget(g.id, cluster.name) }, "Forget")]));
    show(shown, rows.length === 0 ? h("p", { class: "card empty" }, "No destination is registered yet.")
      : table("Destinations", ["Name", "Group", "Hosts", "Action"], rows));
  }

  const forget = (groupId, cluster) => ask({
    title: `Forget ${cluster}`, verb: "Forget", dangerous: true, lines: ["Nothing happens to the cluster itself."],
    act: async () => {
      await call("DELETE", `/api/limosa/v1/groups/${groupId}/clusters/${encodeURIComponent(cluster)}`);
      say(`${cluster} is forgotten.`);
      await load();
    },
  });

  async function submit(event) {
    event.preventDefault();
    problem.hidden = true;
    try {
      await call("POST", `/api/limosa/v1/groups/${group.value}/clusters`, { name: name.value, uri: uri.value });
      say(`${name.value} can be the destination of migrations.`);
      name.value = uri.value = "";
      await load();
    } catch (error) {
      problem.textContent = plain(error.message);
      problem.hidden = false;
    }
  }

  place.replaceChildren(h("h1", {}, "Clusters"), shown, h("form", { class: "card", onsubmit: submit }, h("h2", {}, "Register a destination"),
    field("Group", group), field("Name", name, "By which migrations ask for it. A name that is known already gets the new URI."),
    field("URI", uri, "mongodb://user:password@host:27017/?replicaSet=rs0. It is kept encrypted and never shown again."),
    problem, h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Register"))));
  load().catch((error) => show(shown, h("p", { class: "problem" }, error.message)));
}
