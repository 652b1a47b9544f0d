// The page of curves: panels by section, runs over one another.

const AXES = [["round", "round"], ["updates", "update"], ["axis/hours", "hours"], ["axis/tokens", "tokens"]];
const MOST_SERIES = 8;

function curvesPage() {
  const controls = el("div", { class: "controls", role: "group", "aria-label": "How curves are drawn" },
    runBoxes(),
    choice("x axis", "x", AXES),
    slider(),
    switchBox("log scale", "log"));
  const panels = app.state.panels.map((panel) => [panel, seriesOf(panel)]).filter(([, s]) => s.length);
  const described = new Set(app.state.panels.flatMap((panel) => panel.names));
  const rest = undescribed(described);
  const sections = [...new Set(panels.map(([panel]) => panel.section))].map((section) =>
    el("section", {}, el("h2", {}, section),
      el("div", { class: app.state.runs.length > 1 ? "panels wide" : "panels" }, panels.filter(([p]) => p.section === section).map(panelFigure))));
  if (!panels.length) sections.push(el("p", { class: "empty" }, "No round is logged yet."));
  if (rest.length) sections.push(moreMetrics(rest));
  return [el("h1", {}, "Curves"), controls, ...sections];
}

function panelFigure([panel, series]) {
  const log = app.view.log === "1";
  const [, xLabel] = AXES.find(([name]) => name === (app.view.x || "round")) ?? AXES[0];
  const options = { unit: panel.unit, zero: panel.zero, log, smooth: smoothing(), xLabel, name: panel.title };
  const unit = { frac: "", bytes: "GiB" }[panel.unit] ?? panel.unit;
  const dropped = series.dropped ? ` The ${MOST_SERIES} largest of ${series.dropped} are shown.` : "";
  return el("figure", { class: "panel" },
    el("figcaption", {}, el("h3", { text: panel.title }, unit ? el("small", {}, ` ${unit}`) : null), el("p", { text: panel.meaning + dropped })),
    chart(series, options));
}

/** Runs that are ticked. */
function shownRuns() {
  const hidden = new Set((app.view.hide || "").split(","));
  return app.state.runs.map((run, i) => [run, i]).filter(([, i]) => !hidden.has(String(i)));
}

function seriesOf(panel) {
  const named = panel.prefix === "pass@" ? passSeries() : metricSeries(panel);
  const metrics = [...new Set(named.map((one) => one.metric))];
  // One part or one source is the reward itself, which has a panel.
  if (panel.prefix.startsWith("reward/") && metrics.length < 2) return [];
  const many = metrics.length > 1;
  const series = named.map((one) => ({
    ...one,
    label: many ? one.short : app.state.runs.length > 1 ? one.run : "",
    colour: many && panel.prefix === "verdict/" ? verdictColour(one.short) : slotColour(many ? metrics.indexOf(one.metric) : one.runPlace),
    dash: DASHES[(many ? one.runPlace : 0) % DASHES.length],
  }));
  series.dropped = named.dropped;
  return series;
}

function metricSeries(panel) {
  const runs = shownRuns();
  let names = panel.names, dropped = 0;
  if (panel.prefix) {
    const found = new Set(runs.flatMap(([run]) => Object.keys(run.columns).filter((n) => n.startsWith(panel.prefix))));
    const size = (name) => Math.max(...runs.map(([run]) => (run.columns[name] ?? []).reduce((s, y) => s + Math.abs(y ?? 0), 0)));
    names = [...found].filter((name) => panel.prefix !== "verdict/" || size(name) > 0);
    if (names.length > MOST_SERIES) dropped = names.length;
    if (dropped) names = names.sort((a, b) => size(b) - size(a)).slice(0, MOST_SERIES);
    else names.sort((a, b) => verdictPlace(a) - verdictPlace(b));
  }
  const short = shortNames(names, panel.prefix);
  const series = names.flatMap((metric, i) => runs.flatMap(([run, runPlace]) => {
    const one = { metric, short: short[i], run: run.name, runPlace, ...pointsOf(run, metric) };
    if (metric.startsWith("eval/")) Object.assign(one, evaluationBand(run, one));
    return one.xs.length ? [one] : [];
  }));
  return Object.assign(series, { dropped });
}

/** What tells the metrics of a panel apart. */
function shortNames(names, prefix) {
  if (prefix === "verdict/") return names.map((name) => (VERDICTS.find(([verdict]) => name === prefix + verdict) ?? [0, name.slice(prefix.length)])[1]);
  if (prefix) return names.map((name) => name.slice(prefix.length));
  const tails = names.map((name) => name.replace(/^[a-z]+\//, "").replace(/_(s|frac)$/, "").replace("_at_", "@").replaceAll("_", " "));
  return names.length > 1 && new Set(tails).size === 1 ? names.map((name) => name.split("/")[0]) : tails;
}

function verdictPlace(metric) {
  return VERDICTS.findIndex(([name]) => metric === `verdict/${name}`);
}

function verdictColour(short) {
  const place = VERDICTS.findIndex(([, told]) => told === short);
  return place < 0 ? slotColour(0) : verdictFill(place);
}

/** Points of a metric over the chosen axis, missing ones left out. */
function pointsOf(run, metric) {
  const column = run.columns[metric] ?? [];
  const axis = run.columns[app.view.x || "round"] ?? run.columns.round ?? [];
  const kept = column.map((_, i) => i).filter((i) => column[i] !== null && axis[i] !== null && axis[i] !== undefined);
  return { xs: kept.map((i) => axis[i]), ys: kept.map((i) => column[i]), rounds: kept.map((i) => run.columns.round[i]) };
}

/** The interval that stands beside a metric in its evaluation's file, if one does. */
function evaluationBand(run, series) {
  const name = `${series.metric.slice("eval/".length)}_interval`;
  const bounds = series.rounds.map((round) => {
    const label = `round-${String(round + 1).padStart(6, "0")}`;
    const interval = run.evaluations[label]?.[name];
    return Array.isArray(interval) ? interval : [null, null];
  });
  return bounds.every(([low]) => low === null) ? {} : { low: bounds.map(([low]) => low), high: bounds.map(([, high]) => high) };
}

/** pass@k of the rounds; the axis is found by the round's line in the log. */
function passSeries() {
  return shownRuns().flatMap(([run, runPlace]) => {
    const place = new Map((run.columns.round ?? []).map((round, i) => [round, i]));
    const axis = run.columns[app.view.x || "round"] ?? [];
    const ks = [...new Set(run.rounds.flatMap((round) => Object.keys(round.pass)))].sort((a, b) => a - b);
    return ks.map((k) => {
      const kept = run.rounds.filter((r) => r.pass[k] && (place.has(r.round) || (app.view.x || "round") === "round"));
      const largest = Math.max(...run.rounds.flatMap((r) => r.verdicts.map((v) => v.length)), 1);
      return { metric: `pass@${k}`, short: `pass@${k}${k * 4 > largest && k > 1 ? ", one draw" : ""}`, run: run.name, runPlace,
        xs: kept.map((r) => (place.has(r.round) ? axis[place.get(r.round)] : r.round)),
        ys: kept.map((r) => r.pass[k][0]), low: kept.map((r) => r.pass[k][1]), high: kept.map((r) => r.pass[k][2]) };
    }).filter((one) => one.xs.length);
  });
}

/** Metrics that no panel has, by name. */
function undescribed(described) {
  const prefixes = app.state.panels.map((panel) => panel.prefix).filter(Boolean);
  const all = new Set(shownRuns().flatMap(([run]) => Object.keys(run.columns)));
  const known = (name) => described.has(name) || name === "round" || name === "updates" || name.startsWith("axis/")
    || prefixes.some((prefix) => name.startsWith(prefix));
  return [...all].filter((name) => !known(name)).sort();
}

function moreMetrics(names) {
  const host = el("div", { class: "panels" });
  const fill = () => host.replaceChildren(...names.map((name) =>
    panelFigure([{ title: name, meaning: "", names: [name], prefix: "", unit: name.endsWith("_s") ? "s" : name.endsWith("_frac") ? "frac" : "", zero: true },
      seriesOf({ names: [name], prefix: "" })])).filter(Boolean));
  return el("details", { class: "more", id: "more-metrics", on: { toggle: (e) => e.target.open && !host.firstChild && fill() } },
    el("summary", {}, `${counted(names.length, "other metric")} (docs/numbers.md says what they are)`), host);
}

function runBoxes() {
  if (app.state.runs.length < 2) return null;
  const hidden = new Set((app.view.hide || "").split(",").filter(Boolean));
  return el("fieldset", { class: "boxes" }, el("legend", {}, "runs"), app.state.runs.map((run, i) => {
    const box = el("input", { type: "checkbox", id: `shown-run-${i}`, checked: !hidden.has(String(i)), on: { change: () => {
      if (box.checked) hidden.delete(String(i)); else hidden.add(String(i));
      go({ hide: [...hidden].join(",") });
    } } });
    return el("label", {}, box, lineKey(slotColour(i), DASHES[i % DASHES.length]), el("span", { text: run.name }));
  }));
}

function choice(label, name, options, fallback = options[0][0]) {
  const now = app.view[name] ?? fallback;
  return el("label", {}, `${label} `, el("select", { id: `choice-${name}`, on: { change: (e) => go({ [name]: e.target.value === fallback ? "" : e.target.value }) } },
    options.map(([value, told]) => el("option", { value, selected: String(value) === String(now) }, told))));
}

function switchBox(label, name) {
  return el("label", {}, el("input", { type: "checkbox", id: `switch-${name}`, checked: app.view[name] === "1", on: { change: (e) => go({ [name]: e.target.checked ? "1" : "" }) } }), ` ${label}`);
}

/** Long runs are smoothed unless told otherwise. */
function smoothing() {
  const longest = Math.max(0, ...app.state.runs.map((run) => run.rounds.length));
  return Math.min(0.99, Math.max(0, viewNumber("smooth", longest > 100 ? 0.8 : 0)));
}

function slider() {
  const words = (share) => `${shown(share)}${share > 0 ? ", values below unsmoothed" : ""}`;
  const told = el("output", {}, words(smoothing()));
  const input = el("input", { type: "range", id: "smooth", min: 0, max: 0.95, step: 0.05, value: smoothing() });
  input.addEventListener("input", () => { told.textContent = words(Number(input.value)); });
  input.addEventListener("change", () => go({ smooth: input.value }));
  return el("label", { class: "slider" }, "smoothing ", input, told);
}
