// A line chart of ours: bands, several series, a readout under the pointer or the arrow keys.

const CHART_HEIGHT = 170;
const EDGE = { left: 46, right: 10, top: 8, bottom: 22 };
const MOST_BANDS = 3;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

/**
 * A chart as an element.
 * series: [{label, colour, dash, xs, ys, low, high}]; options: {unit, zero, log, smooth, xLabel, name}.
 */
function chart(series, options) {
  if (options.unit === "bytes") series = series.map((one) => ({ ...one, ys: one.ys.map((y) => y / 2 ** 30) }));
  const legend = el("ul", { class: "legend" });
  const plot = el("div", { class: "plot", tabindex: 0, role: "application", "aria-roledescription": "chart", id: `plot-${options.name}`,
    "aria-label": `${options.name}: ${series.map(spoken(options)).join("; ")}. Arrow keys read values.` });
  const at = el("span", { class: "at" });
  const box = el("div", { class: "chart" }, plot, legend, at);
  const drawn = { at: null };
  const draw = () => {
    const width = plot.clientWidth;
    if (!width) return;
    const frame = frameOf(series, options, width);
    plot.replaceChildren(picture(series, options, frame));
    const rule = svg("line", { class: "rule", y1: EDGE.top, y2: CHART_HEIGHT - EDGE.bottom, visibility: "hidden" });
    plot.firstChild.append(rule);
    drawn.read = (x) => readout(series, options, { legend, at }, frame, rule, x);
    drawn.frame = frame;
    drawn.read(drawn.at);
  };
  plot.addEventListener("pointermove", (event) => {
    if (!drawn.read) return;
    const box = plot.getBoundingClientRect();
    drawn.at = drawn.frame.fromX(event.clientX - box.left);
    drawn.read(drawn.at);
  });
  plot.addEventListener("pointerleave", () => { drawn.at = null; drawn.read?.(null); });
  plot.addEventListener("blur", () => { drawn.at = null; drawn.read?.(null); });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !drawn.read) return;
    event.preventDefault();
    event.stopPropagation();
    const xs = [...new Set(series.flatMap((one) => one.xs))].sort((a, b) => a - b);
    const place = drawn.at === null ? xs.length - 1 : nearest(xs, drawn.at);
    drawn.at = xs[Math.min(xs.length - 1, Math.max(0, place + (drawn.at === null ? 0 : step)))];
    drawn.read(drawn.at);
    say(`${at.textContent}: ${legend.textContent}`);
  });
  whenSeen(plot, draw);
  return box;
}

const spoken = (options) => (one) => {
  const last = one.ys.findLast((y) => y !== null);
  return `${plain(one.label)} last ${shown(last, options.unit)}`.trim();
};

/** Call `draw` when a node comes into view, and again when its width changes. */
function whenSeen(node, draw) {
  let width = 0;
  const sized = new ResizeObserver(() => {
    if (!node.isConnected) { sized.disconnect(); return; }
    if (node.clientWidth !== width) { width = node.clientWidth; draw(); }
  });
  new IntersectionObserver((seen, watcher) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    watcher.disconnect();
    sized.observe(node);
  }, { rootMargin: "300px" }).observe(node);
}

/** Scales from values to pixels. */
function frameOf(series, options, width) {
  const xs = series.flatMap((one) => [one.xs[0], one.xs[one.xs.length - 1]]).filter((x) => x !== undefined);
  const ys = series.flatMap((one) => [...one.ys, ...(options.log ? [] : one.low ?? []), ...(one.high ?? [])])
    .filter((y) => y !== null && y !== undefined && (!options.log || y > 0));
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const ends = [x0, x1];
  if (!(x1 > x0)) { x0 -= 0.5; x1 += 0.5; }
  let y0 = Infinity, y1 = -Infinity;
  for (const y of ys) { if (y < y0) y0 = y; if (y > y1) y1 = y; }
  if (!ys.length) [y0, y1] = options.log ? [0.1, 1] : [0, 1];
  if (options.zero && !options.log) { y0 = Math.min(0, y0); y1 = Math.max(0, y1); }
  if (y1 === y0) { const pad = Math.abs(y1) * 0.1 || 1; y1 += pad; if (!options.zero) y0 -= pad; }
  if (options.log) { y0 *= 0.9; y1 *= 1.1; }
  const raise = options.log ? Math.log10 : (v) => v;
  const ticks = options.log ? logTicks(y0, y1) : niceTicks(y0, y1, 4);
  if (!options.log) { y0 = Math.min(y0, ticks[0]); y1 = Math.max(y1, ticks[ticks.length - 1]); }
  const right = width - EDGE.right, bottom = CHART_HEIGHT - EDGE.bottom;
  const toX = (x) => EDGE.left + ((x - x0) / (x1 - x0)) * (right - EDGE.left);
  const toY = (y) => bottom - ((raise(y) - raise(y0)) / (raise(y1) - raise(y0))) * (bottom - EDGE.top);
  const fromX = (pixel) => x0 + ((pixel - EDGE.left) / (right - EDGE.left)) * (x1 - x0);
  return { width, bottom, floor: y0, toX, toY, fromX, ticks, xTicks: xTicks(ends, width > 420 ? 6 : 4) };
}

/** Ticks where there are points: rounds are whole, and so are tokens; hours need not be. */
function xTicks([from, to], count) {
  if (!(to > from)) return Number.isFinite(from) ? [from] : [];
  const whole = Number.isInteger(from) && Number.isInteger(to);
  return niceTicks(from, to, count).filter((x) => x >= from && x <= to && (!whole || Number.isInteger(x)));
}

function niceTicks(from, to, count) {
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999);
  const first = Math.floor(from / step + 1e-9), last = Math.ceil(to / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function logTicks(from, to) {
  const ticks = [];
  const wide = Math.log10(to / from) > 3;
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++) {
    for (const m of wide ? [1] : [1, 2, 5]) {
      const tick = m * 10 ** power;
      if (tick >= from && tick <= to) ticks.push(tick);
    }
  }
  return ticks.length ? ticks : [from, to];
}

function picture(series, options, frame) {
  const root = svg("svg", { width: frame.width, height: CHART_HEIGHT, "aria-hidden": "true" });
  for (const tick of frame.ticks) {
    const y = frame.toY(tick);
    root.append(svg("line", { class: "grid", x1: EDGE.left, x2: frame.width - EDGE.right, y1: y, y2: y }),
      svg("text", { class: "tick", x: EDGE.left - 6, y: y + 4, "text-anchor": "end" }, axisText(tick, options.unit, frame.ticks[1] - frame.ticks[0])));
  }
  for (const tick of frame.xTicks) {
    root.append(svg("text", { class: "tick", x: frame.toX(tick), y: CHART_HEIGHT - 6, "text-anchor": "middle" }, axisText(tick, "", frame.xTicks[1] - frame.xTicks[0])));
  }
  const banded = series.length <= MOST_BANDS ? series : series.filter((one) => one.metric === series[0].metric);
  const inside = svg("svg", { width: frame.width, height: frame.bottom + 4, overflow: "hidden" });
  for (const one of series) inside.append(...curve(one, options, frame, banded.includes(one)));
  root.append(inside);
  return root;
}

/** A tick's number, with the digits that tell it from its neighbour a `step` away. */
function axisText(value, unit, step) {
  if (unit === "frac") return shown(value, "frac");
  const size = Math.abs(value);
  if (size >= 1e6) return `${shown(value / 1e6)}M`;
  if (size >= 1e4) return `${shown(value / 1e3)}k`;
  return size >= 1e-4 && size < 1e3 && step > 0 ? trimmed(value, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))) : shown(value);
}

/** Band (of the first metric only, where there are many), faint raw line where smoothed, line, and dots where points are few. */
function curve(one, options, frame, isBanded) {
  const inside = (y) => y !== null && y !== undefined && (!options.log || y > 0);
  const points = thinned(one.xs, one.ys, frame.width);
  const parts = [];
  if (one.low && isBanded) {
    const [low, high] = [one.low, one.high].map((bound) => smoothed(bound, options.smooth));
    const kept = one.xs.map((x, i) => [x, low[i], high[i]]).filter(([, a, b]) => a !== null && inside(b));
    const there = kept.map(([x, , top]) => `${frame.toX(x)},${frame.toY(top)}`);
    const back = kept.map(([x, under]) => `${frame.toX(x)},${frame.toY(Math.max(frame.floor, under))}`).reverse();
    parts.push(svg("polygon", { class: "band", points: [...there, ...back].join(" "), css: { fill: one.colour } }));
  }
  const line = (path, extra) => svg("path", { class: `line ${extra}`, d: path, "stroke-dasharray": one.dash || null, css: { stroke: one.colour } });
  const path = (ys) => pathOf(points.xs, ys, frame, inside);
  if (options.smooth > 0) parts.push(line(path(points.ys), "raw"), line(path(smoothed(points.ys, options.smooth)), ""));
  else parts.push(line(path(points.ys), ""));
  if (points.xs.length <= 40 && !options.smooth) {
    points.xs.forEach((x, i) => {
      if (inside(points.ys[i])) parts.push(svg("circle", { class: "dot", cx: frame.toX(x), cy: frame.toY(points.ys[i]), r: points.xs.length <= 12 ? 3 : 2, css: { fill: one.colour } }));
    });
  }
  return parts;
}

/** A gap where a value is missing would hide evaluations that come every ten rounds: lines go on. */
function pathOf(xs, ys, frame, inside) {
  let path = "";
  for (let i = 0; i < xs.length; i++) {
    if (inside(ys[i])) path += `${path ? "L" : "M"}${frame.toX(xs[i]).toFixed(1)} ${frame.toY(ys[i]).toFixed(1)}`;
  }
  return path;
}

/** Exponential moving average, unbiased at its start. */
function smoothed(ys, share) {
  if (!share) return ys;
  let sum = 0, weight = 0;
  return ys.map((y) => {
    if (y === null || y === undefined) return null;
    sum = share * sum + (1 - share) * y;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}

/** At most two points a pixel: means of neighbours. */
function thinned(xs, ys, width) {
  const size = Math.ceil(xs.length / (2 * width));
  if (size <= 1) return { xs, ys };
  const cut = { xs: [], ys: [] };
  for (let i = 0; i < xs.length; i += size) {
    const kept = ys.slice(i, i + size).filter((y) => y !== null && y !== undefined);
    cut.xs.push(xs[i]);
    cut.ys.push(kept.length ? kept.reduce((a, b) => a + b, 0) / kept.length : null);
  }
  return cut;
}

/** The index of the value in a sorted list that is nearest. */
function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low > 0 && value - sorted[low - 1] < sorted[low] - value ? low - 1 : low;
}

/** The legend holds the values: at x, or the last ones. */
function readout(series, options, { legend, at }, frame, rule, x) {
  const told = (one) => {
    const known = one.xs.map((_, i) => i).filter((i) => one.ys[i] !== null && one.ys[i] !== undefined);
    const place = x === null ? known[known.length - 1] : known[nearest(known.map((i) => one.xs[i]), x)];
    const key = lineKey(one.colour, one.dash);
    const band = one.low && place !== undefined && series.length <= MOST_BANDS ? ` [${shown(one.low[place], options.unit)}, ${shown(one.high[place], options.unit)}]` : "";
    return el("span", { class: "value", title: one.run }, key, el("b", {}, shown(place === undefined ? null : one.ys[place], options.unit)), band);
  };
  const names = [...new Set(series.map((one) => one.label))];
  legend.replaceChildren(...names.map((name) =>
    el("li", {}, name ? el("span", { class: "name", text: name }) : null, series.filter((one) => one.label === name).map(told))));
  const place = nearestX(series, x ?? Infinity);
  at.textContent = place === null ? "" : `${options.xLabel} ${shown(place)}`;
  rule.setAttribute("visibility", x === null ? "hidden" : "visible");
  if (x !== null) { rule.setAttribute("x1", frame.toX(place)); rule.setAttribute("x2", frame.toX(place)); }
}

function nearestX(series, x) {
  const near = series.filter((one) => one.xs.length).map((one) => one.xs[nearest(one.xs, x)]);
  if (!near.length) return null;
  return x === Infinity ? Math.max(...near) : near.reduce((a, b) => (Math.abs(a - x) <= Math.abs(b - x) ? a : b));
}

/** A piece of a line, for legends. */
function lineKey(colour, dash) {
  return svg("svg", { class: "key", width: 22, height: 10, "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 21, y1: 5, y2: 5, "stroke-dasharray": dash || null, css: { stroke: colour } }));
}
