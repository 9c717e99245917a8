// Requests to the API, with the session's cookie; and loops that keep a page up to date.

export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** The server didn't answer. */
export class Unreachable extends Error {}

const ATLAS = "application/vnd.atlas.2025-03-12+json";

export async function call(method, path, body) {
  const headers = { "X-Limosa-Request": "1", Accept: path.startsWith("/api/atlas/") ? ATLAS : "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(20000),
    });
  } catch {
    throw new Unreachable("The server doesn't answer.");
  }
  const text = await answer.text().catch(() => "");
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { /* not JSON: a proxy's page, perhaps */ }
  if (answer.ok) return value;
  if (answer.status === 401 && answer.headers.get("www-authenticate") === "Session") {
    window.dispatchEvent(new Event("limosa:signed-out"));
  }
  if (answer.status >= 502 && answer.status <= 504) throw new Unreachable("The server doesn't answer.");
  throw new ApiError(answer.status, value?.errorCode ?? "", value?.detail ?? `The server answered ${answer.status}.`);
}

export const get = (path) => call("GET", path);

/** All pages of a list. */
export async function all(path) {
  const found = [];
  for (let page = 1; ; page += 1) {
    const joint = path.includes("?") ? "&" : "?";
    const answer = await get(`${path}${joint}itemsPerPage=500&pageNum=${page}`);
    found.push(...answer.results);
    if (answer.results.length < 500) return found;
  }
}

function connection(text) {
  const place = document.getElementById("connection");
  place.hidden = !text;
  if (place.textContent !== text) place.textContent = text;
}

let told = null;

/** Whether the server tells of changes now. */
const isTold = () => told?.readyState === EventSource.OPEN;

/**
 * Lets the server tell when a migration changed, as long as the page is seen: a browser has few connections to one
 * server. The browser connects again by itself, except after a refusal.
 */
export function listen(wanted) {
  if (!wanted || document.hidden) {
    told?.close();
    told = null;
  } else if (!told || told.readyState === EventSource.CLOSED) {
    told = new EventSource("/api/limosa/v1/changes");
    const wake = () => window.dispatchEvent(new Event("limosa:changed"));
    told.addEventListener("changed", wake);
    told.addEventListener("error", wake);
  }
}

/**
 * Calls `load` and hands what it gives to `show`, again and again; waits longer while the server doesn't answer, and
 * says so. What shows migrations alone is `pushed`: it follows when the server tells of a change, and asks rarely
 * otherwise. Returns how to end it.
 */
export function follow(load, show, { every = 2000, pushed = false } = {}) {
  let over = false;
  let timer;
  let wake = () => {};
  (async () => {
    let failures = 0;
    while (!over) {
      try {
        const found = await load();
        if (over) return;
        if (failures > 0) connection("");
        failures = 0;
        show(found);
      } catch (error) {
        if (over) return;
        if (error instanceof Unreachable) {
          failures += 1;
          connection("The connection to the server is lost. What you see is what was known last; trying again.");
        } else if (error instanceof ApiError) {
          if (error.status === 401 && !error.code.startsWith("USER_")) return;
          show(null, error);
        } else {
          throw error;
        }
      }
      // A host that falls silent changes nothing that the server could tell of.
      const calm = pushed && isTold() ? 5000 : every;
      const pause = failures ? Math.min(every * 2 ** (failures - 1), 10000) : calm;
      await new Promise((done) => { wake = done; timer = setTimeout(done, document.hidden ? Math.max(pause, 10000) : pause); });
    }
  })();
  const now = () => { clearTimeout(timer); wake(); };
  const visible = () => { if (!document.hidden) now(); };
  document.addEventListener("visibilitychange", visible);
  if (pushed) window.addEventListener("limosa:changed", now);
  return {
    now,
    stop() {
      over = true;
      document.removeEventListener("visibilitychange", visible);
      window.removeEventListener("limosa:changed", now);
      connection("");
      now();
    },
  };
}
