// What the page knows, and which view of it is shown. The view is the address's hash, so that a
// link leads back to it.

const VERDICTS = [
  ["correct", "right"], ["wrong", "wrong"], ["no_answer", "no answer"], ["malformed", "malformed"],
  ["too_large", "too large"], ["timeout", "timeout"], ["memory", "memory"],
  ["grader_error", "grader error"], ["sandbox_error", "sandbox error"], ["judge_error", "judge error"],
];
const LETTER = Object.fromEntries(VERDICTS.map(([name], i) => [name, String.fromCharCode(97 + i)]));
const OURS = new Set(["h", "i", "j"]);

const app = { state: { runs: [], panels: [], serve: false }, view: {}, draw: () => {} };

/** The view that the address names. */
function readView() {
  const [page, query = ""] = location.hash.slice(1).split("?");
  app.view = { page: PAGES.some(([name]) => name === page) ? page : "runs" };
  for (const [name, value] of new URLSearchParams(query)) app.view[name] = value;
}

/** The address of a view. */
function linkTo(view) {
  const { page, ...rest } = view;
  const kept = Object.entries(rest).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const query = new URLSearchParams(kept.map(([k, v]) => [k, String(v)]));
  return `#${page}${kept.length ? `?${query}` : ""}`;
}

/** Change the view. `step`: whether the back button undoes it; `redraw`: whether the page is drawn. */
function go(change, { step = false, redraw = true } = {}) {
  app.view = { ...app.view, ...change };
  const link = linkTo(app.view);
  if (link !== location.hash) history[step ? "pushState" : "replaceState"](null, "", link);
  if (redraw) app.draw();
}

/** A number in the view. */
function viewNumber(name, fallback) {
  const value = app.view[name];
  return value === undefined || value === "" || Number.isNaN(Number(value)) ? fallback : Number(value);
}

/** The run that is looked at. */
function runNumber() {
  return Math.min(Math.max(0, viewNumber("run", 0) | 0), Math.max(0, app.state.runs.length - 1));
}

/** Whether the page holds a group's rollouts. */
function isHeld(round, place) {
  return round.held === null || round.held.includes(place);
}

/** How many of a group's graded completions are right, and of how many. */
function rightOf(verdicts) {
  let right = 0, graded = 0;
  for (const letter of verdicts) {
    if (letter === "a") right += 1;
    if (!OURS.has(letter)) graded += 1;
  }
  return [right, graded];
}

/** Colour of a run or a series, by its place. */
function slotColour(place) {
  return `var(--s${place % 8})`;
}
