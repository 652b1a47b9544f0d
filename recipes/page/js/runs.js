// The first page: what the runs are, how they were measured, and what the page leaves out.

function runsPage() {
  const runs = app.state.runs;
  return [
    el("h1", {}, runs.length > 1 ? "Runs" : "Run"),
    el("div", { class: "run-cards" }, runs.map(runCard)),
    evaluationTable(runs),
    runs.length > 1 ? configDifferences(runs) : null,
    el("section", {}, el("h2", {}, "Settings"), runs.map(settings)),
  ];
}

function runCard(run, place) {
  const last = run.columns.round?.length ? run.columns.round.length - 1 : -1;
  const rounds = run.config.train?.num_rounds;
  const done = Math.max(last + 1, run.rounds.length);
  const rollouts = run.rounds.reduce((sum, r) => sum + r.verdicts.reduce((s, v) => s + v.length, 0), 0);
  const at = (name) => (last < 0 ? null : run.columns[name]?.[last]);
  const facts = [
    ["model", lastPart(run.config.model)], ["task", taskName(run.config.task)],
    ["rounds", rounds ? `${done} of ${rounds}` : done], ["updates", at("updates")],
    ["rollouts", shown(rollouts)], ["sampled tokens", shown(at("axis/tokens"))],
    ["left out, contaminated", leftOut(run.contamination)],
    ["time", hoursTold(at("axis/hours"))], ["reward, last tenth", shown(tailMean(run.columns["reward/mean"]))],
  ];
  return el("section", { class: "card run", css: { "border-top-color": slotColour(place) } },
    el("h2", {}, el("span", { class: "name", text: run.name })),
    el("dl", { class: "facts" }, facts.filter(([, v]) => v !== null && v !== undefined && v !== "").map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", { text: value })))),
    notesOf(run),
    el("p", { class: "links" }, el("a", { href: linkTo({ page: "curves" }) }, "curves"), " · ",
      el("a", { href: linkTo({ page: "map", run: place }) }, "pass-rate map"), " · ",
      el("a", { href: linkTo({ page: "rollouts", run: place }) }, "rollouts")));
}

function lastPart(name) {
  return String(name ?? "").replace(/\/+$/, "").split("/").slice(-2).join("/");
}

function taskName(task) {
  if (!task || typeof task !== "object") return task ?? "";
  return task.kind === "mixture" ? (task.tasks ?? []).map(taskName).join(" + ") : task.kind ?? "";
}

/** Training problems that share words with a benchmark; nothing if none was compared. */
function leftOut(record) {
  const names = Object.keys(record?.benchmarks ?? {});
  return names.length ? `${shown(record.num_dropped)} of ${shown(record.num_train)} problems, by ${names.join(", ")}` : "";
}

function hoursTold(hours) {
  if (hours === null || hours === undefined) return "";
  return hours < 1 ? `${trimmed(hours * 60, 1)} min` : `${trimmed(hours, 1)} h`;
}

function tailMean(column) {
  const known = (column ?? []).filter((y) => y !== null);
  const tail = known.slice(-Math.max(1, Math.ceil(known.length / 10)));
  return tail.length ? tail.reduce((a, b) => a + b, 0) / tail.length : null;
}

/** What the page leaves out or cannot do, said where the run is shown. */
function notesOf(run) {
  const notes = [];
  if (run.sample) notes.push(`This page holds ${run.sample.held.toLocaleString("en")} of ${run.sample.of.toLocaleString("en")} rollouts: ${run.sample.how}. Curves and the pass-rate map are of all of them; --serve shows every rollout.`);
  const broken = Object.entries(run.broken);
  if (broken.length) notes.push(`${counted(broken.length, "round")} cannot be read and are left out; round ${broken[0][0]}: ${broken[0][1]}`);
  if (run.unreadable) notes.push(`${counted(run.unreadable, "line")} of metrics.jsonl cannot be read.`);
  if (run.ends_half && !app.state.serve) notes.push("The last line of metrics.jsonl is half-written and left out: the run is writing it, or was killed.");
  if (run.rounds.length && !run.has_tokens) notes.push("Its tokenizer is not on this machine: completions are shown as text, without their tokens.");
  if (run.has_tokens && run.columns.round?.length && !run.rounds.some((r) => r.trained)) notes.push("It kept no trainer logprobs (train.keep_logprobs): tokens have no ratio and no advantage.");
  return notes.length ? el("ul", { class: "notes" }, notes.map((text) => el("li", { text }))) : null;
}

function evaluationTable(runs) {
  const rows = runs.flatMap((run, place) => Object.entries(run.evaluations).map(([label, result]) => [run, place, label, result]))
    .filter(([, , , result]) => typeof result.pass_at_1 === "number");
  if (!rows.length) return null;
  const single = rows.some(([, , , r]) => r.is_single_draw);
  const ofK = (r, value) => (r.k ? `${shown(value, "frac")} at ${r.k}${r.is_single_draw ? "*" : ""}` : "");
  return el("section", {}, el("h2", {}, "Evaluations"),
    el("p", { class: "meaning" }, "pass@1 is the mean share of right samples, with its 95% interval over problems. Rows of one split with the same problems can be compared."),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Evaluations" }, el("table", {},
      el("thead", {}, el("tr", {}, [...(runs.length > 1 ? ["run"] : []), "weights", "split", "problems × samples", "pass@1", "0 to 100%", "pass@k", "maj@k", "cut off", "tokens"].map((h) => el("th", { scope: "col", class: h === "0 to 100%" ? "bar" : null }, h)))),
      el("tbody", {}, rows.map(([run, place, label, r]) => el("tr", {},
        runs.length > 1 ? el("td", {}, el("span", { class: "swatch", css: { background: slotColour(place) } }), el("span", { text: run.name })) : null,
        el("th", { scope: "row", text: label }), el("td", { text: r.split }), el("td", { class: "number" }, `${r.num_problems} × ${r.num_samples}`),
        el("td", { class: "number" }, el("b", {}, shown(r.pass_at_1, "frac")), ` [${(r.pass_at_1_interval ?? []).map((v) => shown(v, "frac")).join(", ")}]`),
        el("td", { class: "bar" }, intervalBar(r, place)), el("td", { class: "number" }, ofK(r, r.pass_at_k)), el("td", { class: "number" }, ofK(r, r.maj_at_k)),
        el("td", { class: "number" }, shown(r.truncated_frac, "frac")), el("td", { class: "number" }, shown(r.mean_tokens))))))),
    single ? el("p", { class: "meaning" }, "* a single draw: fewer samples than four times k, too noisy to compare rows by.") : null,
    runs.map(differenceLine));
}

function intervalBar(result, place) {
  const [low, high] = result.pass_at_1_interval ?? [result.pass_at_1, result.pass_at_1];
  const x = (v) => 2 + 116 * v;
  return svg("svg", { width: 120, height: 14, "aria-hidden": "true" },
    svg("line", { class: "grid", x1: 2, x2: 118, y1: 7, y2: 7 }),
    svg("line", { x1: x(low), x2: x(high), y1: 7, y2: 7, "stroke-width": 5, "stroke-opacity": 0.4, css: { stroke: slotColour(place) } }),
    svg("circle", { cx: x(result.pass_at_1), cy: 7, r: 3.5, css: { fill: slotColour(place) } }));
}

function differenceLine(run) {
  const d = run.difference;
  if (!d || typeof d.mean !== "number" || !d.interval) return null;
  const points = (v) => `${v >= 0 ? "+" : "−"}${trimmed(Math.abs(v) * 100, 1)}`;
  const name = app.state.runs.length > 1 ? `${run.name}: ` : "";
  const sure = d.interval[0] > 0 || d.interval[1] < 0 ? "0 lies outside: it holds in this run" : "0 lies inside: it may be chance";
  return el("p", { text: `${name}pass@1, ${d.before} to ${d.after}: ${points(d.mean)} points [${points(d.interval[0])}, ${points(d.interval[1])}], paired over ${d.num_problems} problems. ${sure}.` });
}

function flat(value, prefix = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[prefix, value]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, prefix ? `${prefix}.${name}` : name));
}

function configDifferences(runs) {
  const all = runs.map((run) => new Map(flat(run.config).map(([name, v]) => [name, JSON.stringify(v)])));
  const names = [...new Set(all.flatMap((one) => [...one.keys()]))].filter((name) => new Set(all.map((one) => one.get(name))).size > 1);
  const section = el("section", {}, el("h2", {}, "Settings that differ"));
  if (!names.length) section.append(el("p", {}, "None."));
  else section.append(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings that differ" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "field"), runs.map((run) => el("th", { scope: "col", text: run.name })))),
    el("tbody", {}, names.map((name) => el("tr", {}, el("th", { scope: "row", text: name }), all.map((one) => el("td", { text: one.get(name) ?? "–" }))))))));
  return section;
}

function settings(run, place) {
  return el("details", { id: `settings-${place}` }, el("summary", {}, el("span", { text: run.name }), ": config.yaml and versions.json"),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings" }, el("table", { class: "plain" }, el("tbody", {},
      [...flat(run.config), ...flat(run.versions)].map(([name, value]) =>
        el("tr", {}, el("th", { scope: "row", text: name }), el("td", { text: typeof value === "string" ? value : JSON.stringify(value) })))))));
}
