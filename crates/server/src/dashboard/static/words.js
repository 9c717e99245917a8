// Facts as a person would write them.

export const PHASES = ["scheduled", "preparing", "copying", "buildingIndexes", "catchingUp", "synced", "cuttingOver",
  "finalizing", "complete"];

const NAMES = {
  scheduled: "Waiting for a host", preparing: "Preparing", copying: "Copying", buildingIndexes: "Building indexes",
  catchingUp: "Catching up", synced: "Ready for cutover", cuttingOver: "Cutting over", finalizing: "Finalizing",
  complete: "Complete", paused: "Paused", failed: "Failed", expired: "Expired", cancelled: "Cancelled",
};

export const phase = (kind) => NAMES[kind] ?? kind;

/** Whether its host says nothing: then all that is shown is what was known last. */
export const isSilent = (migration) => migration.progress.waiting?.code === "HOST_SILENT";

/** Where it is, as far as that is known. */
export function state(migration) {
  if (isSilent(migration)) return "Not known: its host is silent";
  return migration.phase === "synced" && !migration.readyForCutover ? "Not known yet" : phase(migration.phase);
}

/** good, busy, waiting or bad: the colour of a badge; its words say the same. Good is only what is known to be. */
export function mood(migration) {
  const kind = migration.phase;
  if (isSilent(migration)) return "bad";
  if (kind === "synced") return migration.readyForCutover ? "good" : "waiting";
  if (kind === "complete") return "good";
  if (kind === "failed" || kind === "expired") return "bad";
  if (kind === "paused" || kind === "scheduled" || kind === "cancelled") return "waiting";
  return "busy";
}

export const isOver = (kind) => ["complete", "failed", "expired", "cancelled"].includes(kind);

const whole = new Intl.NumberFormat("en");
export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  let value = n;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** When its host was heard of last. */
export const heard = (migration) => (migration.reportAgeSeconds === null || migration.reportAgeSeconds === undefined
  ? "never reported" : `reported ${span(migration.reportAgeSeconds)} ago`);

const clock = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const time = (text) => (text ? clock.format(new Date(text)) : "–");

export const since = (text) => (Date.now() - new Date(text).getTime()) / 1000;
export const until = (text) => -since(text);

/** Between 0 and 1, of the whole way to being ready. */
export function progress(migration) {
  const p = migration.progress;
  const share = (part, total) => (total > 0 ? Math.min(1, part / total) : 0);
  switch (migration.phase) {
    case "scheduled": case "preparing": return 0;
    case "copying": return 0.8 * share(p.bytesCopied, p.bytesTotal);
    case "buildingIndexes": return 0.8 + 0.1 * share(p.indexesBuilt, p.indexesTotal);
    case "catchingUp": return 0.9;
    case "synced": case "cuttingOver": case "finalizing": case "complete": return 1;
    default: return p.bytesTotal > 0 ? 0.8 * share(p.bytesCopied, p.bytesTotal) : 0;
  }
}

/** What to do now, in a sentence. */
export function next(migration) {
  if (isSilent(migration)) return `See whether the agent on ${migration.migrationHosts[0]} runs and reaches this server. Until it reports, nobody knows how far this is.`;
  if (migration.phase === "synced" && !migration.readyForCutover) return "Nothing to do: its host looks where it is and says so in a moment.";
  switch (migration.phase) {
    case "scheduled": return `An agent on ${migration.migrationHosts[0]} takes it on as soon as it is free. If nothing happens, look whether one is running there.`;
    case "preparing": return "Nothing to do: connections are made, and the change stream is opened.";
    case "copying": return "Nothing to do: the data is copied while the application continues writing to the source.";
    case "buildingIndexes": return "Nothing to do: secondary indexes are built on the destination.";
    case "catchingUp": return "Nothing to do: what changed during the copy is applied. It is ready once the lag is small.";
    case "synced": return "Stop the application's writes on the source, then cut over.";
    case "cuttingOver": case "finalizing": return "Keep the application's writers stopped until this is complete.";
    case "complete": return "Point the application to the destination and start it.";
    case "paused": return "Resume it before the source's oplog has moved on past the point where it stopped.";
    case "failed": return "Fix the cause below, then resume: it continues where it was.";
    case "expired": return "Nobody cut over in time. Nothing was deleted; to move the data, start a new migration.";
    case "cancelled": return "It was given up. The source is as it was.";
    default: return "";
  }
}

/** Which namespaces a migration carries. */
export function carried({ includeNamespaces: only, excludeNamespaces: never }) {
  const kept = only.length === 0 ? "all" : only.join(", ");
  return never.length === 0 ? kept : `${kept} but ${never.join(", ")}`;
}
