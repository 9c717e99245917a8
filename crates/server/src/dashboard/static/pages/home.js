// All migrations of all groups, live.

import { h, show } from "../dom.js";
import { all, follow } from "../api.js";
import { bytes, heard, isOver, mood, progress, since, span, state as stateOf } from "../words.js";

const chosen = { group: "", state: "", text: "" };

async function load() {
  const groups = await all("/api/atlas/v2/groups");
  const lists = await Promise.all(groups.map(({ id }) => all(`/api/limosa/v1/groups/${id}/liveMigrations`)));
  const names = new Map(groups.map(({ id, name }) => [id, name]));
  const migrations = lists.flat().map((m) => ({ ...m, group: names.get(m.groupId) }));
  migrations.sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  return { groups, migrations };
}

const STATES = {
  active: (m) => !isOver(m.phase),
  ready: (m) => m.readyForCutover,
  failed: (m) => m.phase === "failed" || m.phase === "expired",
  over: (m) => isOver(m.phase),
};

function wanted(m) {
  const text = `${m.source.clusterName} ${m.destination.clusterName} ${m.migrationHosts.join(" ")} ${m.id}`.toLowerCase();
  return (!chosen.group || m.groupId === chosen.group) && (!chosen.state || STATES[chosen.state](m))
    && text.includes(chosen.text.toLowerCase());
}

function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

function row(m) {
  const share = progress(m);
  const percent = `${Math.floor(share * 100)} %`;
  const name = `${m.source.clusterName} → ${m.destination.clusterName}`;
  return h("li", { class: "card job" },
    h("div", { class: "job-head" },
      h("a", { href: `#/migrations/${m.groupId}/${m.id}` }, name),
      h("span", { class: `badge ${mood(m)}` }, stateOf(m))),
    h("div", { class: "job-bar" },
      h("progress", { max: "1", value: share, "aria-label": `Progress of ${name}` }, percent), h("span", {}, percent)),
    h("dl", { class: "facts" },
      fact("Status", m.status), fact("Lag", m.lagTimeSeconds === null ? "–" : span(m.lagTimeSeconds)),
      m.progress.waiting && !isOver(m.phase) && fact("Held up", `${m.progress.waiting.code}: ${m.progress.waiting.message}`),
      fact("Copied", `${bytes(m.progress.bytesCopied)} of ${bytes(Math.max(m.progress.bytesTotal, m.progress.bytesCopied))}`),
      fact("Host", isOver(m.phase) ? m.migrationHosts.join(", ") : `${m.migrationHosts.join(", ")}, ${heard(m)}`), fact("Group", m.group), fact("In this phase", span(since(m.phaseSince)))));
}

export function home(place) {
  let known = null;
  const group = h("select", { id: "group", onchange: () => { chosen.group = group.value; draw(); } });
  const state = h("select", { id: "state", onchange: () => { chosen.state = state.value; draw(); } },
    [["", "All"], ["active", "Under way"], ["ready", "Ready for cutover"], ["failed", "Failed or expired"], ["over", "Over"]]
      .map(([value, words]) => h("option", { value, selected: value === chosen.state }, words)));
  const text = h("input", { type: "search", id: "text", value: chosen.text, oninput: () => { chosen.text = text.value; draw(); } });
  const list = h("div", {});
  place.replaceChildren(
    h("div", { class: "title" }, h("h1", {}, "Migrations"), h("a", { class: "button primary", href: "#/create" }, "New migration")),
    h("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
      h("div", {}, h("label", { for: "group" }, "Group"), group),
      h("div", {}, h("label", { for: "state" }, "State"), state),
      h("div", {}, h("label", { for: "text" }, "Name, host or id"), text)),
    list);
  function draw() {
    if (!known) return;
    const shown = known.migrations.filter(wanted);
    const empty = known.migrations.length === 0
      ? h("div", { class: "card empty" }, h("h2", {}, "There is no migration yet"),
        h("p", {}, "Three things are needed: a ", h("a", { href: "#/hosts" }, "migration host"), " that announces the source, the destination among the ",
          h("a", { href: "#/clusters" }, "clusters"), ", and then a ", h("a", { href: "#/create" }, "new migration"), "."))
      : h("p", { class: "card empty" }, "No migration fits the filter.");
    show(list, h("p", { class: "hint", role: "status" }, `${shown.length} of ${known.migrations.length} shown`),
      shown.length > 0 ? h("ul", { class: "jobs" }, shown.map(row)) : empty);
  }
  const following = follow(load, (found, error) => {
    if (error) { show(list, h("p", { class: "problem" }, error.message)); return; }
    known = found;
    show(group, h("option", { value: "" }, "All"), found.groups.map(({ id, name }) => h("option", { value: id, selected: id === chosen.group }, name)));
    draw();
  }, { pushed: true });
  return following.stop;
}
