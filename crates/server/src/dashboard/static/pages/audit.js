// Who did what, when and from where.

import { h, show, table } from "../dom.js";
import { get } from "../api.js";
import { time } from "../words.js";

const PER_PAGE = 50;

export function audit(place, session) {
  const shown = h("div", {});
  let page = 1;
  async function load() {
    const found = await get(`/api/limosa/v1/orgs/${session.orgId}/audit?itemsPerPage=${PER_PAGE}&pageNum=${page}`);
    const turn = (to) => () => { page = to; load().catch(failed); };
    show(shown, table("Audit, newest first", ["Time", "Who", "From", "What", "On", "Outcome"], found.results.map((entry) =>
      [time(entry.time), entry.actor, entry.address, entry.operation, entry.target, entry.outcome === "REFUSED" ? "refused" : "done"])),
      h("div", { class: "actions" },
        h("button", { type: "button", disabled: page === 1, onclick: turn(page - 1) }, "Newer"),
        h("span", { class: "hint" }, `Page ${page} of ${Math.max(1, Math.ceil(found.totalCount / PER_PAGE))}`),
        h("button", { type: "button", disabled: page * PER_PAGE >= found.totalCount, onclick: turn(page + 1) }, "Older")));
  }
  const failed = (error) => show(shown, h("p", { class: "problem" }, error.message));
  place.replaceChildren(h("h1", {}, "Audit"), shown);
  load().catch(failed);
}
