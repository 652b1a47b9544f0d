// The list of groups: only the rows in sight are elements, since there may be a hundred thousand.

const ROW = 50;
const MOST_SQUARES = 24;

/** A list box; `open` is called with the entry that is chosen. */
function groupList(open) {
  const inside = el("div", { class: "rows" });
  const box = el("div", { class: "group-list", role: "listbox", tabindex: 0, id: "groups", "aria-label": "Groups" }, inside);
  const list = { box, entries: [], at: -1, run: null };
  let asked = false;
  const fill = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; fillRows(list, inside); });
  };
  box.addEventListener("scroll", fill);
  new ResizeObserver(fill).observe(box);
  box.addEventListener("click", (event) => {
    const row = event.target.closest("[data-n]");
    if (row) open(list.entries[Number(row.dataset.n)]);
  });
  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !list.entries.length) return;
    event.preventDefault();
    event.stopPropagation();
    open(list.entries[Math.min(list.entries.length - 1, Math.max(0, list.at + step))]);
  });
  list.show = (run, entries) => { Object.assign(list, { run, entries }); inside.style.height = `${entries.length * ROW}px`; fill(); };
  list.mark = (entry) => {
    list.at = list.entries.findIndex((one) => one.round.round === entry.round.round && one.place === entry.place);
    if (list.at >= 0) {
      const y = list.at * ROW;
      if (y < box.scrollTop) box.scrollTop = y;
      if (y + ROW > box.scrollTop + box.clientHeight) box.scrollTop = y + ROW - box.clientHeight;
      box.setAttribute("aria-activedescendant", `group-${list.at}`);
    }
    fill();
  };
  return list;
}

function fillRows(list, inside) {
  const first = Math.max(0, Math.floor(list.box.scrollTop / ROW) - 3);
  const last = Math.min(list.entries.length, first + Math.ceil(list.box.clientHeight / ROW) + 6);
  const rows = [];
  for (let n = first; n < last; n++) rows.push(groupRow(list, n));
  inside.replaceChildren(...rows);
}

function groupRow(list, n) {
  const { round, place } = list.entries[n];
  const verdicts = round.verdicts[place];
  const [right, graded] = rightOf(verdicts);
  const squares = [...verdicts.slice(0, MOST_SQUARES)].map((letter) =>
    el("i", { css: { background: verdictFill(letter.charCodeAt(0) - 97) } }));
  return el("div", { class: "row", role: "option", id: `group-${n}`, "data-n": n, "aria-selected": n === list.at ? "true" : "false",
    "aria-setsize": list.entries.length, "aria-posinset": n + 1, css: { top: `${n * ROW}px` } },
    el("div", { class: "row-head" }, el("b", {}, `${round.round}`), el("span", { class: "row-name", text: list.run.problems[round.problems[place]][0] })),
    el("div", { class: "row-foot" }, el("span", { class: "squares", "aria-hidden": "true" }, squares), el("span", {}, `${right} of ${graded} right`)));
}
