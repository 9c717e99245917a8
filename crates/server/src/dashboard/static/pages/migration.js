// One migration: where it is, whether it is well, what to do next.

import { field, h, say, show, table } from "../dom.js";
import { ApiError, all, call, follow, get } from "../api.js";
import { chart, rate } from "../chart.js";
import { ask } from "../dialog.js";
import { PHASES, bytes, carried, count, heard, isOver, isSilent, mood, next, phase, progress, since, span, state as stateOf, time, until } from "../words.js";

/** How long it was in each phase so far, in seconds. */
function durations(m, happened) {
  const spent = new Map();
  const moves = happened.filter(({ data }) => data?.event === "phaseChanged").map(({ data, time }) => [data.to, time]);
  let [kind, from] = ["scheduled", m.createdAt];
  for (const [to, at] of [...moves, [null, isOver(m.phase) ? null : new Date().toISOString()]]) {
    if (at) spent.set(kind, (spent.get(kind) ?? 0) + (Date.parse(at) - Date.parse(from)) / 1000);
    [kind, from] = [to, at];
  }
  return spent;
}

function timeline(m, happened) {
  const stopped = !PHASES.includes(m.phase);
  const at = PHASES.indexOf(m.phase);
  const spent = durations(m, happened);
  return h("ol", { class: "phases", "aria-label": "Phases" }, PHASES.map((kind, index) => {
    const state = stopped || isSilent(m) ? "" : index < at || m.phase === "complete" ? "done" : index === at ? "now" : "";
    return h("li", { class: state, "aria-current": state === "now" ? "step" : null }, phase(kind),
      state === "done" && h("span", { class: "unseen" }, " (done)"),
      spent.has(kind) && h("small", {}, span(spent.get(kind))));
  }));
}

function fact(name, value, note) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
}

function limited({ maxSourceReadMbps: read, maxDestinationWriteMbps: write }) {
  const bound = (verb, mbps) => mbps !== null && mbps !== undefined && `${verb} at most ${count(mbps)} Mbit/s`;
  return [bound("reads", read), bound("writes", write)].filter(Boolean).join(", ") || "no bound in Mbit/s";
}

function rates({ sourceEventsPerSecond: read, appliedEventsPerSecond: applied }) {
  return read === undefined || read === null || applied === undefined || applied === null ? ""
    : `${count(read)}/s read, ${count(applied)}/s applied, `;
}

function facts(m) {
  const p = m.progress;
  const share = `${Math.floor(progress(m) * 100)} %`;
  return h("dl", { class: "tiles" },
    fact("Progress", share, `in this phase for ${span(since(m.phaseSince))}`),
    fact("Copied", bytes(p.bytesCopied), `of ${bytes(Math.max(p.bytesTotal, p.bytesCopied))}, ${count(p.documentsCopied)} documents`),
    fact("Lag", m.lagTimeSeconds === null ? "–" : span(m.lagTimeSeconds), "behind the source"),
    fact("Changes applied", count(p.eventsApplied), `${rates(p)}${bytes(p.spoolBytes)} waiting in the spool`),
    m.expiresAt && fact("Time left for the cutover", span(until(m.expiresAt)), `until ${time(m.expiresAt)}`),
    p.oplogWindowSeconds !== undefined && p.oplogWindowSeconds !== null
      && fact("Source's oplog reaches back", span(p.oplogWindowSeconds), "further than where it is read"),
    fact("Verified", count(p.documentsVerified), `documents in this pass, ${count(p.verificationPasses)} passes made, ${count(p.documentsDirty)} to look at again, ${count(p.documentsRepaired)} repaired`),
    m.progress.writePauseMillis !== null && m.progress.writePauseMillis !== undefined
      && fact("Write pause", `${count(p.writePauseMillis)} ms`, "at the cutover"),
    !isOver(m.phase) && fact("Load level", m.limits.loadLevel, limited(m.limits)),
    fact("Host", m.migrationHosts.join(", "),
      `${isOver(m.phase) ? "" : `${heard(m)}, `}${m.attempts === 1 ? "first attempt" : `${m.attempts} attempts`}`));
}

function waiting(m) {
  const found = m.progress.waiting;
  if (!found || isOver(m.phase)) return h("span", { hidden: true });
  return h("section", { class: "card bad", "aria-labelledby": "waiting" }, h("h2", { id: "waiting" }, `It is waiting: ${found.code}`),
    h("p", {}, `${found.message}. It continues automatically when this is fixed.`),
    h("p", {}, h("a", { href: `/ui/errors/${found.code}`, target: "_blank", rel: "noopener" }, `More about ${found.code}`)));
}

function failure(m) {
  if (!m.failure) return null;
  const { code, message, remedy } = m.failure;
  return h("section", { class: "card bad", "aria-labelledby": "failure" }, h("h2", { id: "failure" }, `It failed: ${code}`),
    h("p", {}, message), h("p", {}, h("strong", {}, "What to do: "), remedy),
    h("p", {}, h("a", { href: `/ui/errors/${code}`, target: "_blank", rel: "noopener" }, `More about ${code}`)));
}

function namespaces(m) {
  const list = m.progress.namespaces ?? [];
  if (list.length === 0) return null;
  return h("section", {}, h("h2", {}, "Namespaces"), h("p", { class: "hint" }, "The largest first."),
    table("Progress per namespace", ["Namespace", "Progress", "Documents", "Bytes"], list.map((n) => {
      const share = n.bytesTotal > 0 ? Math.min(1, n.bytesCopied / n.bytesTotal) : n.documentsTotal > n.documentsCopied ? 0 : 1;
      return [n.namespace, h("progress", { max: "1", value: share, "aria-label": `Progress of ${n.namespace}` }, `${Math.round(share * 100)} %`),
        `${count(n.documentsCopied)} of ${count(Math.max(n.documentsTotal, n.documentsCopied))}`,
        `${bytes(n.bytesCopied)} of ${bytes(Math.max(n.bytesTotal, n.bytesCopied))}`];
    })));
}

function charts(samples) {
  const at = (read) => samples.map((sample) => [Date.parse(sample.time), read(sample)]);
  const windows = at((s) => s.oplogWindowSeconds);
  return h("section", {}, h("h2", {}, "Over time"), h("div", { class: "charts" },
    chart("Copy, bytes a second", rate(samples, (s) => s.bytesCopied), (n) => `${bytes(n)}/s`, 1024),
    chart("Changes applied a second", rate(samples, (s) => s.eventsApplied), (n) => `${count(Math.round(n * 10) / 10)}/s`),
    chart("Lag", at((s) => s.lagSeconds), span),
    chart("Spool", at((s) => s.spoolBytes), bytes, 1024),
    windows.some(([, value]) => typeof value === "number") && chart("Source's oplog reaches back", windows, span)));
}

function rehearsed(found) {
  if (!found) return h("span", { hidden: true });
  if (found.state !== "DONE") return h("section", { class: "card" }, h("h2", {}, "Rehearsal"), h("p", { role: "status" }, "The cutover is being rehearsed."));
  return h("section", { class: found.wouldComplete ? "card" : "card bad", "aria-labelledby": "rehearsal" }, h("h2", { id: "rehearsal" }, "Rehearsal"),
    h("p", { role: "status" }, found.wouldComplete
      ? `The cutover would complete; the application would wait about ${count(found.predictedPauseMillis)} ms.`
      : "The cutover would be rolled back.", ` Rehearsed ${time(found.endedAt)}.`),
    h("ul", {}, found.findings.map((f) => h("li", {}, h("a", { href: `/ui/errors/${f.code}`, target: "_blank", rel: "noopener" }, f.code), ` ${f.evidence}. ${f.remedy}`))),
    table("Steps of the rehearsed cutover", ["Step", "About", "It would"], found.steps.map((s) => [s.step, `${count(s.predictedMillis)} ms`, s.would])));
}

function reported(report, own) {
  if (!report) return h("span", { hidden: true });
  return h("section", { class: "card", "aria-labelledby": "report" }, h("h2", { id: "report" }, "Report"),
    h("p", {}, report.equal ? "Both sides were the same when it was completed, document by document." : "It is not proven that both sides were the same."),
    report.cutoverSteps.length > 0 && table("Steps of the cutover", ["Step", "Took"], report.cutoverSteps.map((s) => [s.step, `${count(s.millis)} ms`])),
    h("h3", {}, "Namespaces"),
    table("What was moved", ["Namespace", "Documents", "Bytes", "Indexes"], report.namespaces.map((n) =>
      [n.namespace, count(n.documentsCompared), bytes(n.bytesCompared), count(n.indexCount)])),
    h("p", { class: "hint" }, `Lag: half of the time at most ${span(report.lag.p50Seconds)}, never more than ${span(report.lag.mostSeconds)}. SHA-256 ${report.sha256}`),
    h("p", {}, h("a", { href: `${own}/report`, download: `limosa-report-${report.migrationId}.json` }, "Download the report")));
}

function events(list) {
  return h("section", {}, h("h2", {}, "Events"), table("Events, newest first", ["Time", "Kind", "What"],
    list.slice().reverse().map((e) => [time(e.time), e.kind, e.data?.event === "phaseChanged" ? `${phase(e.data.from)} → ${phase(e.data.to)}` : e.message])));
}

export function migration(place, session, group, id) {
  const own = `/api/limosa/v1/groups/${group}/liveMigrations/${id}`;
  let following;
  let report = null;

  async function act(verb, body, done) {
    await call("POST", `${own}/${verb}`, body ?? {});
    say(done);
    following.now();
  }

  const blocking = h("input", { type: "checkbox", id: "block" });
  const reversible = h("input", { type: "checkbox", id: "reversible" });
  const cutOver = (m, rehearsal, options) => {
    [blocking.checked, reversible.checked] = [options.blockSourceWrites, options.reversible];
    ask({
      title: "Cut over",
      lines: [rehearsal?.state === "DONE" && (rehearsal.wouldComplete
        ? `Rehearsed ${time(rehearsal.endedAt)}: it would complete, with a write pause of about ${count(rehearsal.predictedPauseMillis)} ms.`
        : `Rehearsed ${time(rehearsal.endedAt)}: it would be rolled back. Look at the rehearsal first.`),
      !rehearsal && "It was not rehearsed yet.",
      `${m.destination.clusterName} takes over from ${m.source.clusterName}. Writes that reach the source from now on are not carried over: if Limosa sees one, the cutover is rolled back.`],
      checks: [
        "The application's writers are stopped, background jobs included.",
        "The users and roles that the application needs exist on the destination.",
        "The application's new connection string is at hand.",
      ],
      word: m.destination.clusterName, wordLabel: `Type the destination's name, ${m.destination.clusterName}, to confirm`,
      verb: "Cut over now", dangerous: true,
      extra: [
        h("div", { class: "check" }, blocking, h("label", { for: "block" }, "Make the source refuse its users' writes meanwhile, and from then on (MongoDB 6.0 or later)")),
        h("div", { class: "check" }, reversible, h("label", { for: "reversible" }, `Afterwards carry what is written to ${m.destination.clusterName} back to ${m.source.clusterName}, as a migration of its own, until you return or give it up`)),
      ],
      act: async () => {
        await call("PUT", `${own}/cutover/options`, { blockSourceWrites: blocking.checked, reversible: reversible.checked });
        await call("PUT", `/api/atlas/v2/groups/${group}/liveMigrations/${id}/cutover`);
        say("The cutover is under way.");
        following.now();
      },
    });
  };
  const extend = () => {
    const hours = h("input", { type: "number", id: "hours", min: "1", max: "2160", value: "24", required: true });
    ask({
      title: "Give more time for the cutover", verb: "Extend",
      extra: h("div", { class: "field" }, h("label", { for: "hours" }, "Hours more"), hours),
      act: () => act("extend", { seconds: Number(hours.value) * 3600 }, "There is more time now."),
    });
  };
  const cancel = (m) => {
    const drop = h("input", { type: "checkbox", id: "drop" });
    ask({
      title: "Cancel this migration", verb: "Cancel the migration", dangerous: true,
      lines: ["It can't be resumed. The source stays as it is."],
      extra: h("div", { class: "check" }, drop, h("label", { for: "drop" }, `Drop what was copied to ${m.destination.clusterName}`)),
      word: m.destination.clusterName, wordLabel: `Type the destination's name, ${m.destination.clusterName}, to confirm`,
      act: () => act("cancel", { dropCopied: drop.checked }, "The migration is cancelled."),
    });
  };
  const abortCutover = () => ask({
    title: "Back to ready", verb: "End the cutover",
    lines: ["The cutover under way ends, the source takes writes again, and the migration is ready as before. If it completes before it hears of this, it stays complete."],
    act: () => act("cutover/abort", {}, "The cutover ends."),
  });
  const pause = () => ask({
    title: "Pause", verb: "Pause the migration",
    lines: ["It stops where it is. Meanwhile the source's oplog moves on: resume before it has moved past the point where the migration stopped."],
    act: () => act("pause", {}, "The migration is paused."),
  });
  const resume = () => ask({
    title: "Resume", verb: "Resume the migration", lines: ["It continues where it was."],
    act: () => act("resume", {}, "The migration continues."),
  });

  const limit = (m) => {
    const level = h("select", { id: "load-level" }, [
      [1, "1, the kindest"], [2, "2"], [3, "3, as usual"], [4, "4"], [5, "5, all that the clusters give"],
    ].map(([value, words]) => h("option", { value, selected: value === m.limits.loadLevel }, words)));
    const bound = (id, held) => h("input", { type: "number", id, min: "1", max: "4294967295", value: held ?? "" });
    const read = bound("read-mbps", m.limits.maxSourceReadMbps);
    const write = bound("write-mbps", m.limits.maxDestinationWriteMbps);
    const given = (input) => (input.value === "" ? {} : { [input === read ? "maxSourceReadMbps" : "maxDestinationWriteMbps"]: Number(input.value) });
    ask({
      title: "How hard it may go", verb: "Set",
      lines: ["It holds for the initial copy; changes are always followed as fast as they come."],
      extra: [field("Load level", level), field("Megabits a second read from the source", read, "Empty: no bound."),
        field("Megabits a second written to the destination", write, "Empty: no bound.")],
      act: () => act("limits", { loadLevel: Number(level.value), ...given(read), ...given(write) }, "The limits are set."),
    });
  };

  const rehearse = async () => {
    try {
      await call("POST", `${own}/cutover/rehearsal`, {});
      following.now();
    } catch (error) {
      say(error.message);
    }
  };

  function buttons(m, rehearsal, options) {
    const over = isOver(m.phase);
    const moving = ["scheduled", "preparing", "copying", "buildingIndexes", "catchingUp", "synced"].includes(m.phase);
    const button = (name, onclick, kind) => h("button", { type: "button", class: kind, onclick, id: `do-${name.toLowerCase().replaceAll(" ", "-")}` }, name);
    return h("div", { class: "actions", role: "group", "aria-label": "Actions" },
      m.readyForCutover && button("Cut over", () => cutOver(m, rehearsal, options), "primary"),
      m.readyForCutover && button("Rehearse", rehearse),
      (m.phase === "cuttingOver" || m.phase === "finalizing") && button("Back to ready", abortCutover, "primary"),
      m.expiresAt && button("Extend", extend),
      moving && button("Pause", pause),
      !over && button("Limits", () => limit(m)),
      (m.phase === "paused" || m.phase === "failed") && button("Resume", resume, "primary"),
      (!over || m.phase === "failed") && m.phase !== "finalizing" && button("Cancel", () => cancel(m), "danger"));
  }

  async function load() {
    const [detail, happened, history] = await Promise.all([get(own), all(`${own}/events`), get(`${own}/history`)]);
    const maybe = (path) => get(path).catch((error) => { if (error instanceof ApiError) return null; throw error; });
    const [rehearsal, options] = detail.phase === "synced"
      ? await Promise.all([maybe(`${own}/cutover/rehearsal`), get(`${own}/cutover/options`)]) : [null, null];
    if (detail.phase === "complete" && !report) report = await maybe(`${own}/report`);
    return { detail, happened, history, rehearsal, options };
  }

  show(place, h("h1", {}, "Migration"), h("p", {}, "Loading."));
  following = follow(load, (found, error) => {
    if (error) {
      show(place, h("h1", {}, "Migration"), h("p", { class: "problem" }, error.message));
      return;
    }
    const { detail: m, happened, history, rehearsal, options } = found;
    const back = happened.filter(({ kind }) => kind === "failure").at(-1);
    const takenBack = m.phase === "synced" && back
      && h("p", { class: "card bad" }, h("strong", {}, "The last cutover was rolled back: "), back.message);
    document.title = `${stateOf(m)}: ${m.source.clusterName} → ${m.destination.clusterName} – Limosa`;
    show(place,
      h("p", { class: "hint" }, h("a", { href: "#/" }, "Migrations"), ` / ${m.id}`),
      h("div", { class: "title" }, h("h1", {}, `${m.source.clusterName} → ${m.destination.clusterName}`),
        h("span", { class: `badge ${mood(m)}`, id: "phase", role: "status" }, stateOf(m))),
      (m.includeNamespaces.length > 0 || m.excludeNamespaces.length > 0)
        && h("p", { class: "hint" }, `Namespaces: ${carried(m)}, as far as its agent's options admit them.`),
      h("section", { class: `card next ${mood(m)}`, "aria-labelledby": "next" },
        h("h2", { id: "next" }, "What to do now"), h("p", {}, next(m)), buttons(m, rehearsal, options)),
      waiting(m), takenBack || h("span", { hidden: true }), failure(m) ?? h("span", { hidden: true }),
      rehearsed(rehearsal), reported(m.phase === "complete" ? report : null, own),
      timeline(m, happened),
      h("progress", { max: "1", value: progress(m), "aria-label": "Progress" }),
      facts(m), charts(history), namespaces(m) ?? h("span", { hidden: true }), events(happened));
  }, { pushed: true });
  return following.stop;
}
