// A line over time, as SVG. What it shows stands in words beside it.

import { h, svg } from "./dom.js";

const WIDTH = 460;
const HEIGHT = 160;
const LEFT = 84;
const RIGHT = 8;
const TOP = 12;
const BOTTOM = 24;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** The next rounder number, in units of powers of `base`. */
function ceiling(value, base) {
  if (value <= 0) return 1;
  const unit = base ** Math.max(0, Math.floor(Math.log(value) / Math.log(base)));
  const power = 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10].map((n) => n * power * unit).find((n) => n >= value);
}

/** `points`: pairs of milliseconds and a number; `words` writes such a number, whose units are powers of `base`. */
export function chart(title, points, words, base = 1000) {
  const known = points.filter(([, value]) => value !== null && value !== undefined && Number.isFinite(value));
  if (known.length < 2) {
    return h("figure", { class: "chart" }, h("figcaption", {}, h("strong", {}, title)),
      h("p", { class: "hint" }, "Shown once there are two measurements, ten seconds apart."));
  }
  const [first, last] = [known[0][0], known[known.length - 1][0]];
  const values = known.map(([, value]) => value);
  const [peak, now] = [Math.max(...values), values[values.length - 1]];
  const top = ceiling(peak, base);
  // Between whole numbers there may be nothing to write.
  const marks = [0, 0.5, 1].filter((part) => part !== 0.5 || words(part * top) !== words(top));
  const x = (at) => LEFT + ((at - first) / Math.max(1, last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const line = known.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const ground = HEIGHT - BOTTOM;
  const format = last - first > 86400000 ? day : clock;
  const summary = `now ${words(now)}, highest ${words(peak)}`;
  return h("figure", { class: "chart" },
    h("figcaption", {}, h("strong", {}, title), " ", h("span", {}, summary)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${summary}` },
      marks.map((part) => [
        svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(part * top), y2: y(part * top) }),
        svg("text", { class: "label", x: LEFT - 6, y: y(part * top) + 4, "text-anchor": "end" }, words(part * top)),
      ]),
      svg("polygon", { class: "area", points: `${LEFT},${ground} ${line} ${WIDTH - RIGHT},${ground}` }),
      svg("polyline", { class: "line", points: line }),
      svg("text", { class: "label", x: LEFT, y: HEIGHT - 6 }, format.format(first)),
      svg("text", { class: "label", x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, format.format(last))));
}

/** How much a counter grew a second, between each two samples; a counter that began again counts from there. */
export function rate(samples, read) {
  return samples.slice(1).map((sample, at) => {
    const before = samples[at];
    const seconds = (Date.parse(sample.time) - Date.parse(before.time)) / 1000;
    return [Date.parse(sample.time), seconds > 0 ? Math.max(0, read(sample) - read(before)) / seconds : 0];
  });
}
