// The frame: tabs, theme, keys, and following a run that is training.

const PAGES = [["runs", "Runs", runsPage], ["curves", "Curves", curvesPage], ["map", "Pass-rate map", mapPage], ["rollouts", "Rollouts", rolloutsPage]];
const KEYS = [["n, →", "next group"], ["p, ←", "previous group"], ["c", "colour by the next"], ["/", "search in completions"],
  ["1 to 4", "pages"], ["arrow keys", "values of a focused chart, cells of the map, tokens of a completion"], ["?", "this help"]];
const THEMES = ["auto", "light", "dark"];
const FOLLOW_MS = 2000;

app.draw = () => {
  const focused = document.activeElement?.id;
  const main = document.getElementById("main");
  drawTop();
  const [, title, page] = PAGES.find(([name]) => name === app.view.page) ?? PAGES[0];
  document.title = `${title} · ${app.state.runs.map((run) => plain(run.name)).join(", ") || "Groupwise"}`;
  main.className = `on-${app.view.page}`;
  const map = document.getElementById("pass-map");
  const [left, top] = map ? [map.scrollLeft, map.scrollTop] : [0, 0];
  const opened = [...main.querySelectorAll("details[open][id]")].map((one) => one.id);
  main.replaceChildren(...(app.state.runs.length ? page().filter(Boolean) : [el("p", { class: "empty" }, "Reading the runs …")]));
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  if (map) document.getElementById("pass-map")?.scrollTo(left, top);
  if (focused && focused !== "main") document.getElementById(focused)?.focus({ preventScroll: true });
};

function drawTop() {
  const links = PAGES.map(([name, title]) => el("a", { href: linkTo(tabView(name)), id: `tab-${name}`, "aria-current": name === app.view.page ? "page" : null,
    on: { click: (e) => { if (!e.ctrlKey && !e.metaKey && !e.shiftKey) { e.preventDefault(); go(tabView(name), { step: true }); } } } }, title));
  document.getElementById("top").replaceChildren(
    el("span", { class: "brand" }, "Groupwise"),
    el("nav", { "aria-label": "Pages" }, links),
    el("span", { class: "top-right" },
      app.state.serve ? el("span", { class: `live ${app.lost ? "lost" : ""}`, title: "This page follows the run folder" }, app.lost ? "not connected" : app.state.reading ? "reading …" : "live") : null,
      el("button", { type: "button", id: "theme", "aria-label": `Theme: ${theme()}`, title: "light or dark", on: { click: nextTheme } }, { auto: "◐", light: "☀", dark: "☾" }[theme()]),
      el("button", { type: "button", id: "ask", "aria-label": "Keys", on: { click: showHelp } }, "?")));
}

/** Going to another page keeps what is chosen. */
function tabView(page) {
  return { ...app.view, page };
}

function theme() {
  try { return localStorage.getItem("groupwise-theme") || "auto"; } catch { return app.theme || "auto"; }
}

function nextTheme() {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  app.theme = next;
  try { localStorage.setItem("groupwise-theme", next); } catch { /* kept in app.theme */ }
  setTheme();
  app.draw();
}

function setTheme() {
  if (theme() === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme();
}

function showHelp() {
  const help = document.getElementById("help");
  help.replaceChildren(el("h2", { id: "help-title" }, "Keys"),
    el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
    el("p", { class: "soft" }, "The address of this page is a link to what it shows now."),
    el("form", { method: "dialog" }, el("button", { type: "submit", on: { click: (e) => { e.preventDefault(); help.close(); } } }, "Close")));
  help.showModal();
}

function onKey(event) {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const inRollouts = app.view.page === "rollouts" && browser.list;
  const act = {
    n: () => inRollouts && move(1), ArrowRight: () => inRollouts && move(1),
    p: () => inRollouts && move(-1), ArrowLeft: () => inRollouts && move(-1),
    c: () => inRollouts && browser.now?.data.hasTokens && nextColouring(),
    "/": () => searchField(), "?": showHelp,
  }[event.key] ?? (/^[1-4]$/.test(event.key) ? () => go(tabView(PAGES[event.key - 1][0]), { step: true }) : null);
  if (!act) return;
  event.preventDefault();
  act();
}

function searchField() {
  if (app.view.page !== "rollouts") go(tabView("rollouts"), { step: true });
  const field = document.getElementById("filter-text");
  field?.closest("details")?.setAttribute("open", "");
  field?.focus();
}

/** Ask for the state again and again; draw when it has changed and nobody is typing. */
async function follow() {
  let tag = null;
  for (;;) {
    const was = app.lost;
    try {
      const answer = await fetch("/state", { headers: tag ? { "If-None-Match": tag } : {} });
      app.lost = false;
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        app.state = await answer.json();
        refresh();
      }
    } catch { app.lost = true; }
    if (was !== app.lost) drawTop();
    await new Promise((done) => setTimeout(done, app.state.reading && !app.lost ? 0 : FOLLOW_MS));
  }
}

function refresh() {
  // The browser keeps its place: its list grows, what is being read stays.
  if (app.view.page === "rollouts" && browser.list?.box.isConnected) { drawTop(); refilter(false); } else app.draw();
}

function start() {
  app.state = JSON.parse(document.getElementById("state").textContent);
  setTheme();
  readView();
  addEventListener("hashchange", () => { readView(); app.draw(); });
  document.addEventListener("keydown", onKey);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  let width = innerWidth;
  addEventListener("resize", debounced(() => {
    if (innerWidth !== width && app.view.page === "map") app.draw();
    width = innerWidth;
  }, 200));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.draw());
  app.draw();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  if (app.state.serve) follow();
}

start();
