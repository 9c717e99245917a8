// A new migration: what, where, by whom; whether it could start; start.

import { field, h, say, show } from "../dom.js";
import { all, call, get, ApiError, Unreachable } from "../api.js";
import { bytes } from "../words.js";

export function create(place, session) {
  let over = false;
  const loading = h("p", {}, "Loading.");
  show(place, h("h1", {}, "New migration"), loading);

  async function begin() {
    const [projects, groups] = await Promise.all([
      get(`/api/atlas/v2/orgs/${session.orgId}/liveMigrations/availableProjects`), all("/api/atlas/v2/groups"),
    ]);
    const clusters = (await Promise.all(groups.map(async (group) =>
      (await all(`/api/limosa/v1/groups/${group.id}/clusters`)).map(({ name }) => ({ group, name }))))).flat();
    if (!over) form(projects, clusters);
  }

  function form(projects, clusters) {
    const sources = projects.flatMap((project) => project.deployments.map((deployment) => ({ project, deployment })));
    if (sources.length === 0 || clusters.length === 0) {
      show(place, h("h1", {}, "New migration"), h("div", { class: "card empty" },
        sources.length === 0 && h("p", {}, "No agent announces a source yet: start one on a ", h("a", { href: "#/hosts" }, "migration host"), "."),
        clusters.length === 0 && h("p", {}, "No destination is registered yet: add it to the ", h("a", { href: "#/clusters" }, "clusters"), ".")));
      return;
    }
    const source = h("select", { id: "source", onchange: fill }, sources.map(({ project, deployment: d }, at) =>
      h("option", { value: at }, `${d.name} (${project.name}, MongoDB ${d.mongoDBVersion}, ${bytes(d.dbSizeBytes)})`)));
    const host = h("select", { id: "host" });
    const destination = h("select", { id: "destination" }, clusters.map(({ group, name }, at) =>
      h("option", { value: at }, `${name} (${group.name})`)));
    const own = h("input", { type: "radio", name: "credentials", id: "own", checked: true, onchange: fill });
    const given = h("input", { type: "radio", name: "credentials", id: "given", onchange: fill });
    const user = h("input", { type: "text", id: "user", autocomplete: "off" });
    const password = h("input", { type: "password", id: "password", autocomplete: "off" });
    const login = h("div", { class: "pair" }, field("User of the source", user), field("Password of the source", password));
    const patterns = (id) => h("textarea", { id, rows: "3", spellcheck: "false", autocapitalize: "none", autocomplete: "off" });
    const include = patterns("include");
    const exclude = patterns("exclude");
    const listed = ({ value }) => value.split(/[\n,]/).map((line) => line.trim()).filter(Boolean);
    const drop = h("input", { type: "checkbox", id: "drop" });
    const result = h("div", { role: "status", id: "result" });
    const validate = h("button", { type: "button", onclick: check }, "Validate");
    const start = h("button", { type: "submit", class: "primary" }, "Start");

    function fill() {
      const { project } = sources[source.value];
      host.replaceChildren(...project.migrationHosts.map((name) => h("option", { value: name }, name)));
      login.hidden = !given.checked;
    }

    function body() {
      const { project, deployment } = sources[source.value];
      const { group, name } = clusters[destination.value];
      const login = given.checked ? { managedAuthentication: false, username: user.value, password: password.value } : { managedAuthentication: true };
      return {
        group: group.id,
        request: {
          source: { groupId: project.projectId, clusterName: deployment.name, ssl: deployment.tlsEnabled, ...login },
          destination: { groupId: group.id, clusterName: name, hostnameSchemaType: "PUBLIC" },
          migrationHosts: [host.value], dropDestinationData: drop.checked,
          includeNamespaces: listed(include), excludeNamespaces: listed(exclude),
        },
      };
    }

    async function carefully(work) {
      validate.disabled = start.disabled = true;
      try {
        await work();
      } catch (error) {
        if (!(error instanceof ApiError || error instanceof Unreachable)) throw error;
        show(result, h("p", { class: "problem" }, error.message));
      } finally {
        validate.disabled = start.disabled = false;
      }
    }

    function check() {
      return carefully(async () => {
        const { group, request } = body();
        show(result, h("p", {}, "The host looks at both clusters."));
        const path = `/api/limosa/v1/groups/${group}/liveMigrations/validate`;
        let now = await call("POST", path, request);
        while (now.status === "PENDING" && !over) {
          await new Promise((done) => { setTimeout(done, 1000); });
          now = await get(`${path}/${now.id}`);
        }
        const fine = now.status === "SUCCESS";
        show(result, fine ? h("p", { class: "fine" }, "Nothing stands in the way: it can start.") : h("h2", {}, "This stands in the way"),
          now.errorMessage && h("p", { class: "problem" }, now.errorMessage),
          h("ul", { class: "findings" }, now.findings.map(({ code, severity, evidence, remedy }) => {
            const warning = severity === "WARNING";
            return h("li", { class: warning ? "card" : "card bad" }, h("strong", {}, warning ? `Good to know: ${code}` : code),
              h("p", {}, `${evidence}.`), h("p", {}, h("strong", {}, "What to do: "), remedy),
              h("a", { href: `/ui/errors/${code}`, target: "_blank", rel: "noopener" }, `More about ${code}`));
          })));
      });
    }

    function submit(event) {
      event.preventDefault();
      return carefully(async () => {
        const { group, request } = body();
        const made = await call("POST", `/api/limosa/v1/groups/${group}/liveMigrations`, request);
        say("The migration is created.");
        location.hash = `#/migrations/${group}/${made.id}`;
      });
    }

    fill();
    show(place, h("h1", {}, "New migration"), h("form", { class: "card", onsubmit: submit },
      field("Source", source, "A deployment that an agent announces."),
      field("Migration host", host),
      h("fieldset", {}, h("legend", {}, "Credentials for the source"),
        h("div", { class: "check" }, own, h("label", { for: "own" }, "The agent's own")),
        h("div", { class: "check" }, given, h("label", { for: "given" }, "Another user")), login),
      field("Destination", destination),
      h("fieldset", {}, h("legend", {}, "Namespaces"),
        h("p", { class: "hint" }, "db.* is a whole database, db.collection one collection; one a line. The options that the agent was started with bound what can be chosen."),
        h("div", { class: "pair" }, field("Only these", include, "Empty: all."), field("Never these", exclude, "Wins over the others."))),
      h("div", { class: "check" }, drop, h("label", { for: "drop" }, "Drop what the destination holds under these namespaces, before the copy")),
      result,
      h("div", { class: "actions" }, validate, start)));
  }

  begin().catch((error) => show(place, h("h1", {}, "New migration"), h("p", { class: "problem" }, error.message)));
  return () => { over = true; };
}
