// Which groups are listed: by run, round, verdict, problem, kind, and what a completion says.

const KINDS = [["", "all groups"], ["some", "some right"], ["none", "none right"], ["all", "all right"]];

function filterForm(onChange) {
  const field = (name, label, kind, extra = {}) => {
    const typed = debounced(onChange, 250);
    return el("label", {}, el("span", {}, label),
      el("input", { id: `filter-${name}`, type: kind, value: app.view[name] ?? "", ...extra, on: { input: (e) => typed({ [name]: e.target.value }) } }));
  };
  return el("form", { class: "filters", role: "search", "aria-label": "Filter groups", on: { submit: (e) => e.preventDefault() } },
    runFilter(onChange),
    field("text", "text", "search", { autocomplete: "off", spellcheck: "false" }),
    field("problem", "problem", "search", { autocomplete: "off", spellcheck: "false" }),
    el("div", { class: "pair" }, field("from", "from round", "number", { min: 0 }), field("to", "to round", "number", { min: 0 })),
    el("label", {}, el("span", {}, "groups with"), el("select", { id: "filter-kind", on: { change: (e) => onChange({ kind: e.target.value }) } },
      KINDS.map(([value, label]) => el("option", { value, selected: value === (app.view.kind ?? "") }, label)))),
    verdictChips(onChange));
}

function runFilter(onChange) {
  if (app.state.runs.length < 2) return null;
  return el("label", {}, el("span", {}, "run"), el("select", { id: "filter-run", on: { change: (e) => onChange({ run: e.target.value, round: "", group: "", sample: "" }) } },
    app.state.runs.map((run, i) => el("option", { value: i, selected: i === runNumber(), text: run.name }))));
}

function verdictChips(onChange) {
  const run = app.state.runs[runNumber()];
  const there = new Set((run?.rounds ?? []).flatMap((r) => [...new Set(r.verdicts.join(""))]));
  const chosen = new Set((app.view.verdict ?? "").split(",").filter(Boolean));
  return el("fieldset", { class: "chips" }, el("legend", {}, "a completion that is"),
    VERDICTS.map(([name, label], i) => {
      if (!there.has(LETTER[name]) && !chosen.has(name)) return null;
      const box = el("input", { type: "checkbox", id: `verdict-${name}`, checked: chosen.has(name), on: { change: () => {
        if (box.checked) chosen.add(name); else chosen.delete(name);
        onChange({ verdict: [...chosen].join(",") });
      } } });
      return el("label", { class: "chip" }, box, el("span", { class: "swatch", css: { background: verdictFill(i) } }), label);
    }));
}

function verdictFill(place) {
  return `var(--v${place})`;
}

/** Letters of the chosen verdicts; empty for any. */
function chosenLetters() {
  return new Set((app.view.verdict ?? "").split(",").filter(Boolean).map((name) => LETTER[name]));
}

/** Groups that pass everything that is known without unpacking: [{round, place}]. */
function listed(run) {
  const letters = chosenLetters();
  const [from, to] = [viewNumber("from", -Infinity), viewNumber("to", Infinity)];
  const problem = (app.view.problem ?? "").toLowerCase();
  const named = problem ? run.problems.map(([id, source]) => `${id} ${source}`.toLowerCase().includes(problem)) : null;
  const kind = app.view.kind ?? "";
  const found = [];
  for (const round of run.rounds) {
    if (round.round < from || round.round > to) continue;
    const held = round.held === null ? null : new Set(round.held);
    round.verdicts.forEach((verdicts, place) => {
      if (held && !held.has(place)) return;
      if (named && !named[round.problems[place]]) return;
      if (letters.size && ![...verdicts].some((letter) => letters.has(letter))) return;
      if (kind && kind !== kindOf(verdicts)) return;
      found.push({ round, place });
    });
  }
  return found;
}

function kindOf(verdicts) {
  const right = verdicts.split("a").length - 1;
  return right === 0 ? "none" : right === verdicts.length ? "all" : "some";
}

/** The completions of a group that pass the filters on completions; null if there are none. */
function matching(round, group) {
  const needle = (app.view.text ?? "").toLowerCase();
  const letters = chosenLetters();
  if (!needle && !letters.size) return null;
  return new Set(group.rollouts.map((rollout, sample) => [rollout, sample])
    .filter(([r]) => !letters.size || letters.has(LETTER[r.verdict]))
    .filter(([r]) => !needle || textOf(round, r).toLowerCase().includes(needle))
    .map(([, sample]) => sample));
}

/** Of some groups those where a completion passes; `told` hears how far it is, `isOld` stops it. */
async function searched(number, entries, told, isOld) {
  const found = [], rounds = [...new Set(entries.map((entry) => entry.round))];
  for (const [n, round] of rounds.entries()) {
    let data = null;
    try { data = await loadRound(number, round.round); } catch { continue; }
    if (isOld()) return null;
    for (const entry of entries.filter((one) => one.round === round)) {
      const group = data.groups.find((one) => one.place === entry.place);
      if (group && matching(data, group).size) found.push(entry);
    }
    if (n % 8 === 7 || n === rounds.length - 1) told(found, n + 1, rounds.length);
  }
  return found;
}
