// The rollout browser: filters and the list on one side, a group's completions on the other.

const browser = { list: null, detail: null, search: 0, shownKey: "" };
const SORTS = [["", "as sampled"], ["reward", "by reward"], ["length", "by length"]];

function rolloutsPage() {
  const run = app.state.runs[runNumber()];
  if (!run?.rounds.length) return [el("h1", {}, "Rollouts"), el("p", { class: "empty" }, "No round is there yet.")];
  browser.list = groupList((entry) => openEntry(entry, true));
  browser.count = el("p", { class: "count", "aria-live": "polite" });
  browser.detail = el("section", { class: "detail", id: "detail", tabindex: -1, "aria-label": "Group" });
  browser.shownKey = "";
  const filters = filterForm((change) => { go(change, { redraw: "run" in change }); if (!("run" in change)) refilter(true); });
  const side = el("aside", {}, el("details", { class: "filter-box", open: innerWidth > 800 || filtersAreOn() }, el("summary", {}, "Filters"), filters), browser.count, browser.list.box);
  queueMicrotask(() => refilter(false));
  return [el("h1", { class: "unseen" }, "Rollouts"), el("a", { class: "skip", href: "#detail", on: { click: (e) => { e.preventDefault(); browser.detail.focus(); } } }, "Skip to the completions"),
    el("div", { class: "browser" }, side, browser.detail)];
}

const NO_FILTERS = { text: "", problem: "", from: "", to: "", kind: "", verdict: "" };

function filtersAreOn() {
  return Object.keys(NO_FILTERS).some((name) => app.view[name]);
}

/**
 * List what passes the filters; a search through texts shows what it has found so far.
 * `changed`: the filters are new, and a group that does not pass them makes room for one that does.
 */
async function refilter(changed) {
  const number = runNumber(), run = app.state.runs[number];
  const mine = ++browser.search;
  const entries = listed(run);
  const show = (found, told) => {
    browser.list.show(run, found);
    browser.count.textContent = told;
    const current = currentEntry(run);
    if (current) browser.list.mark(current);
  };
  if (!app.view.text) {
    show(entries, `${counted(entries.length, "group")}${run.sample ? " of the sample" : ""}`);
    openCurrent(run, entries, changed);
    return;
  }
  // A run that goes on is searched again: what was found stays until then.
  const isNew = changed || !browser.list.entries.length;
  if (isNew) show([], "searching …");
  const progress = (some, done, of) => isNew && show([...some], `${counted(some.length, "group")} in ${done} of ${of} rounds searched`);
  const found = await searched(number, entries, progress, () => mine !== browser.search || !browser.list.box.isConnected);
  if (!found) return;
  show(found, `${counted(found.length, "group")} found`);
  openCurrent(run, found, changed);
}

/** The group that the view names, if the page holds it. */
function currentEntry(run) {
  const round = run.rounds.find((one) => one.round === viewNumber("round", -1));
  const place = viewNumber("group", -1);
  return round && round.verdicts[place] !== undefined && isHeld(round, place) ? { round, place } : null;
}

function openCurrent(run, entries, changed) {
  const current = currentEntry(run);
  const passes = (entry) => entries.some((one) => one.round.round === entry.round.round && one.place === entry.place);
  if (current && (!changed || passes(current))) { openEntry(current, false); return; }
  const isNamed = (app.view.round ?? "") !== "" && !changed;
  if (entries.length && !isNamed) { openEntry(entries[0], false); return; }
  const asked = isNamed ? `Round ${app.view.round}, group ${app.view.group || 0} is not in this page${run.sample ? ": it holds a sample; --serve shows every rollout" : ""}.` : "No group passes the filters.";
  browser.shownKey = "";
  const clear = () => { go({ ...NO_FILTERS, round: "", group: "" }); };
  browser.detail.replaceChildren(el("div", { class: "empty" }, el("p", { text: asked }),
    filtersAreOn() ? el("button", { type: "button", id: "clear-filters", on: { click: clear } }, "Clear the filters") : null));
}

async function openEntry(entry, step) {
  const number = runNumber(), run = app.state.runs[number];
  go({ run: number || "", round: entry.round.round, group: entry.place, ...(step ? { sample: "" } : {}) }, { redraw: false });
  browser.list.mark(entry);
  const key = linkTo({ page: "x", run: number, round: entry.round.round, group: entry.place, text: app.view.text, verdict: app.view.verdict, trained: entry.round.trained });
  if (key === browser.shownKey) return;
  browser.shownKey = key;
  let data;
  try { data = await loadRound(number, entry.round.round); } catch (error) {
    browser.detail.replaceChildren(el("p", { class: "empty", text: `This round cannot be shown: ${error.message}` }));
    return;
  }
  if (browser.shownKey !== key || !browser.detail.isConnected) return;
  const group = data.groups.find((one) => one.place === entry.place);
  browser.now = { run, entry, data, group };
  drawGroup();
}

function drawGroup() {
  const { run, entry, data, group } = browser.now;
  const [right, graded] = rightOf(entry.round.verdicts[entry.place]);
  const told = el("p", { class: "told token-told idle", "aria-live": "off" }, "Point at a token, or focus a completion and use the arrow keys.");
  browser.detail.replaceChildren(
    el("header", { class: "group-head" },
      el("div", {}, el("h2", { text: group.id }),
        el("p", { class: "soft" }, `round ${entry.round.round} · group ${entry.place + 1} of ${entry.round.verdicts.length} · ${right} of ${graded} right${sameWeights(group) ? ` · ${weightsOf(group.rollouts[0])}` : ""}`,
          group.source && group.source !== group.id ? el("span", { text: ` · ${group.source}` }) : null)),
      el("div", { class: "buttons" },
        button("← previous", "p", () => move(-1)), button("next →", "n", () => move(1)), otherRounds(run, entry))),
    promptBlock(data, group),
    el("div", { class: "controls colours" }, colourings(data), sorting()),
    el("p", { class: "meaning", id: "colour-means" }, colourScale(data.hasTokens ? colouringNow(data) : "none"), el("span", {}, colouringNote(data, group))),
    el("div", { class: "cards" }, cardsOf(data, group, (parts) => {
      told.classList.remove("idle");
      told.replaceChildren(...parts.flatMap((part, i) => [i ? " · " : "", el("span", { text: part })]));
    })),
    data.hasTokens ? told : "");
  const linked = document.getElementById(`sample-${viewNumber("sample", -1)}`);
  linked?.classList.add("linked");
  linked?.scrollIntoView({ block: "nearest" });
}

/** Whether one version of the weights drew all completions of a group. */
function sameWeights(group) {
  return group.rollouts.length > 0 && new Set(group.rollouts.map(weightsOf)).size === 1;
}

function button(label, key, act) {
  return el("button", { type: "button", "aria-keyshortcuts": key, title: `key ${key}`, on: { click: act } }, label);
}

/** The same problem in other rounds. */
function otherRounds(run, entry) {
  const problem = entry.round.problems[entry.place];
  const found = run.rounds.flatMap((round) => round.problems.map((p, place) => [round, p, place])).filter(([round, p, place]) => p === problem && isHeld(round, place));
  if (found.length < 2) return null;
  return el("label", {}, "this problem in round ", el("select", { id: "other-rounds", on: { change: (e) => openEntry({ round: found[e.target.value][0], place: found[e.target.value][2] }, true) } },
    found.map(([round, , place], i) => el("option", { value: i, selected: round === entry.round && place === entry.place }, `${round.round} (${rightOf(round.verdicts[place])[0]} right)`))));
}

function promptBlock(data, group) {
  const messages = typeof group.prompt === "string" ? [{ role: "problem", content: group.prompt }] : group.prompt;
  return el("div", { class: "prompt" },
    messages.map((message) => el("div", {}, el("span", { class: "role", text: message.role ?? "" }), el("div", { class: "text", dir: "auto", text: asText(message.content) }))),
    el("div", {}, el("span", { class: "role" }, "answer"), el("div", { class: "text", dir: "auto", text: asText(group.answer).slice(0, 2000) })),
    data.hasTokens && group.prompt_tokens ? el("details", {}, el("summary", {}, `as the model saw it, ${counted(group.prompt_tokens, "token")}`),
      el("div", { class: "text", dir: "auto", text: textsOf(data, group.firstId, group.prompt_tokens).join("") })) : null);
}

function colourings(data) {
  if (!data.hasTokens) return null;
  const now = colouringNow(data);
  return el("fieldset", { class: "segments" }, el("legend", {}, "colour by"), COLOURINGS.map(([name, label]) => {
    const off = (name === "ratio" || name === "advantage") && !data.ratios;
    return el("label", { class: off ? "off" : "", title: off ? "the round has no trainer file" : null }, el("input", { type: "radio", name: "colour", id: `colour-${name}`, value: name, checked: name === now, disabled: off,
      on: { change: () => { go({ colour: name }, { redraw: false }); drawGroup(); document.getElementById(`colour-${name}`).focus(); } } }), el("span", {}, label));
  }));
}

function colouringNow(data) {
  const asked = app.view.colour ?? "logprob";
  if (!COLOURINGS.some(([name]) => name === asked)) return "logprob";
  return !data.ratios && (asked === "ratio" || asked === "advantage") ? "logprob" : asked;
}

function colouringNote(data, group) {
  if (!data.hasTokens) return "The run's tokenizer is not on this machine: texts without their tokens.";
  const now = colouringNow(data);
  const untrained = (now === "ratio" || now === "advantage") && !group.rollouts.some((r) => r.advantage !== undefined);
  return untrained ? "Nothing was trained on this group: without signal its advantage is 0." : COLOURING_MEANS[now];
}

function sorting() {
  return el("label", {}, "order ", el("select", { id: "sorting", on: { change: (e) => { go({ sort: e.target.value }, { redraw: false }); drawGroup(); document.getElementById("sorting").focus(); } } },
    SORTS.map(([value, label]) => el("option", { value, selected: value === (app.view.sort ?? "") }, label))));
}

function cardsOf(data, group, told) {
  const match = matching(data, group);
  const rows = group.rollouts.map((rollout, sample) => [rollout, sample]);
  if (app.view.sort === "reward") rows.sort((a, b) => b[0].value - a[0].value);
  if (app.view.sort === "length") rows.sort((a, b) => b[0].sampled - a[0].sampled);
  if (match) rows.sort((a, b) => match.has(b[1]) - match.has(a[1]));
  const colouring = colouringNow(data);
  return rows.map(([rollout, sample]) => card(data, rollout, sample, { colouring, told, versions: !sameWeights(group), match: match ? match.has(sample) : null }));
}

/** The next or previous group of the list. */
function move(step) {
  const list = browser.list;
  if (!list?.entries.length) return;
  const entry = list.entries[Math.min(list.entries.length - 1, Math.max(0, list.at + step))];
  openEntry(entry, true).then(() => say(`round ${entry.round.round}, ${list.run.problems[entry.round.problems[entry.place]][0]}`));
}

/** Next way of colouring. */
function nextColouring() {
  const open = COLOURINGS.map(([name]) => name).filter((name) => browser.now?.data.ratios || name === "none" || name === "logprob");
  go({ colour: open[(open.indexOf(colouringNow(browser.now.data)) + 1) % open.length] }, { redraw: false });
  drawGroup();
  say(`colour by ${app.view.colour}`);
}
