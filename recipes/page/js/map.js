// Pass rates of problems by round: a canvas with a cursor, since there may be a million cells.

const CELL = { widest: 48, lowest: 14, highest: 24, label: 190, head: 20 };
const MOST_MAP_HEIGHT = 560;

function mapPage() {
  const run = app.state.runs[runNumber()];
  if (!run?.rounds.length) return [el("h1", {}, "Pass-rate map"), el("p", { class: "empty" }, "No round is there yet.")];
  const order = app.view.order || (visits(run) > 0.1 * run.rounds.length && visits(run) > 1 ? "gain" : "round");
  const byVisit = order !== "round" && app.view.columns === "visit";
  const rows = order === "round" ? rowsByRank(run) : rowsByProblem(run, order);
  if (byVisit) for (const row of rows) row.cells.forEach((cell, visit) => { cell.column = visit; });
  const most = Math.max(...rows.map((row) => row.cells.length));
  const heads = byVisit ? Array.from({ length: most }, (_, i) => i + 1) : run.rounds.map((round) => round.round);
  const controls = el("div", { class: "controls" }, runChoice(),
    choice("rows", "order", [["round", "groups of a round, best first"], ["gain", "problems, by gain"], ["rate", "problems, by pass rate"], ["first", "problems, as drawn"], ["id", "problems, by name"]], order),
    order === "round" ? null : choice("columns", "columns", [["", "rounds"], ["visit", "draws of the problem"]]));
  const meaning = order === "round"
    ? "A column is a round, its groups sorted by the share of right completions: learning shows as colour that grows from the top."
    : byVisit ? "A row is a problem, a column the first, second, third time it was drawn." : "A row is a problem, a column a round; it has a cell where it was drawn.";
  return [el("h1", {}, "Pass-rate map"), controls, el("p", { class: "meaning" }, `${meaning} Arrow keys move, Enter or a click opens the group.`), scale(rows.some((row) => row.cells.some((cell) => cell.rate === null))), mapView(run, rows, heads, byVisit ? "draw" : "round")];
}

function runChoice() {
  if (app.state.runs.length < 2) return null;
  return choice("run", "run", app.state.runs.map((run, i) => [i, run.name]), 0);
}

/** How often a problem comes, on average. */
function visits(run) {
  const groups = run.rounds.reduce((sum, r) => sum + r.problems.length, 0);
  return groups / Math.max(1, run.problems.length);
}

/** Rows of cells [{column, round, place, rate}] under a label. */
function rowsByProblem(run, order) {
  const rows = new Map();
  run.rounds.forEach((round, column) => round.problems.forEach((problem, place) => {
    if (!rows.has(problem)) rows.set(problem, { label: run.problems[problem][0], cells: [] });
    rows.get(problem).cells.push(cellOf(round, column, place));
  }));
  const keyed = [...rows.values()].map((row) => {
    const rates = row.cells.map((c) => c.rate).filter((rate) => rate !== null);
    return { ...row, gain: rates.length ? rates.at(-1) - rates[0] : 0, rate: rates.reduce((a, b) => a + b, 0) / (rates.length || 1) };
  });
  if (order === "gain") keyed.sort((a, b) => b.gain - a.gain || b.rate - a.rate);
  if (order === "rate") keyed.sort((a, b) => b.rate - a.rate);
  if (order === "id") keyed.sort((a, b) => a.label.localeCompare(b.label, "en", { numeric: true }));
  return keyed;
}

function rowsByRank(run) {
  const rows = [];
  run.rounds.forEach((round, column) => {
    const cells = round.problems.map((_, place) => cellOf(round, column, place)).sort((a, b) => b.rate - a.rate);
    cells.forEach((cell, rank) => (rows[rank] ??= { label: "", cells: [] }).cells.push(cell));
  });
  return rows;
}

function cellOf(round, column, place) {
  const [right, graded] = rightOf(round.verdicts[place]);
  return { column, round, place, rate: graded ? right / graded : null, right, graded };
}

function scale(ungraded) {
  const bar = el("span", { class: "scale", "aria-hidden": "true" }, Array.from({ length: 11 }, (_, i) => el("i", { css: { background: rateColour(i / 10) } })));
  const none = ungraded ? [" · ", el("span", { class: "swatch", css: { background: "var(--line)" } }), "none graded"] : [];
  return el("p", { class: "scale-line" }, "none right ", bar, " all right", none);
}

/** Cividis-like: told apart without colour too, since it only grows lighter. */
function rateColour(rate) {
  const stops = [[18, 52, 106], [62, 80, 120], [106, 109, 118], [150, 144, 121], [201, 185, 104], [254, 232, 56]];
  const at = Math.min(0.9999, Math.max(0, rate)) * (stops.length - 1);
  const i = Math.floor(at);
  return `rgb(${stops[i].map((v, c) => Math.round(v + (stops[i + 1][c] - v) * (at - i))).join(" ")})`;
}

function mapView(run, rows, heads, headName) {
  const labelled = rows.some((row) => row.label);
  const left = labelled ? (innerWidth < 600 ? 96 : CELL.label) : 44;
  const columns = heads.length;
  const told = el("p", { class: "told", "aria-live": "polite" }, "\u00a0");
  const canvas = el("canvas", { "aria-hidden": "true" });
  const height = Math.max(CELL.lowest, Math.min(CELL.highest, Math.floor(420 / rows.length)));
  const filler = el("div", { css: { width: `${left + columns * cellWidth(columns, left)}px`, height: `${CELL.head + rows.length * height}px` } });
  const box = el("div", { class: "map", id: "pass-map", tabindex: 0, role: "application", "aria-label": "Pass-rate map: arrow keys move, Enter opens", css: { height: `${Math.min(MOST_MAP_HEIGHT, CELL.head + rows.length * height + 16)}px` } }, canvas, filler);
  const map = { run, rows, heads, headName, box, canvas, left, height, width: cellWidth(columns, left), told, cursor: keptCursor(rows) };
  const redraw = () => requestAnimationFrame(() => box.isConnected && drawMap(map));
  box.addEventListener("scroll", redraw);
  whenSeen(box, redraw);
  listenToMap(map, redraw);
  return el("div", {}, box, told);
}

/** The cell that was pointed at before the page was drawn again. */
function keptCursor(rows) {
  const is = (cell) => app.cursor && cell.round.round === app.cursor.round && cell.place === app.cursor.place;
  const r = rows.findIndex((row) => row.cells.some(is));
  return r < 0 ? null : { r, cell: rows[r].cells.find(is) };
}

function cellWidth(columns, left) {
  const room = Math.min(1200, innerWidth - 48) - left;
  return Math.max(5, Math.min(CELL.widest, Math.floor(room / columns)));
}

function drawMap(map) {
  const { box, canvas, rows, left, width, height } = map;
  const [w, h, ratio] = [box.clientWidth, box.clientHeight, devicePixelRatio || 1];
  if (canvas.width !== w * ratio || canvas.height !== h * ratio) {
    Object.assign(canvas, { width: w * ratio, height: h * ratio });
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
  }
  const ctx = canvas.getContext("2d");
  const look = getComputedStyle(box);
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, w, h);
  ctx.font = `12px ${look.fontFamily}`;
  ctx.textBaseline = "middle";
  const first = Math.floor(box.scrollTop / height);
  const last = Math.min(rows.length, first + Math.ceil(h / height) + 1);
  ctx.save();
  ctx.beginPath();
  ctx.rect(0, CELL.head, w, h);
  ctx.clip();
  for (let r = first; r < last; r++) {
    const y = CELL.head + r * height - box.scrollTop;
    for (const cell of rows[r].cells) {
      const x = left + cell.column * width - box.scrollLeft;
      if (x < left - width || x > w) continue;
      ctx.fillStyle = cell.rate === null ? look.getPropertyValue("--line") : rateColour(cell.rate);
      ctx.fillRect(x, y + 1, width - 1, height - 2);
      if (map.cursor && map.cursor.cell === cell) outline(ctx, look, x, y, map);
    }
    if (rows[r].label) drawLabel(ctx, look, rows[r].label, y, map);
  }
  ctx.restore();
  drawHead(ctx, look, map, w);
}

function outline(ctx, look, x, y, { width, height }) {
  ctx.strokeStyle = look.getPropertyValue("--focus");
  ctx.lineWidth = 2;
  ctx.strokeRect(x, y + 1, width - 1, height - 2);
}

function drawLabel(ctx, look, label, y, { left, height }) {
  ctx.fillStyle = look.getPropertyValue("--page");
  ctx.fillRect(0, y, left - 2, height);
  ctx.fillStyle = look.getPropertyValue("--soft");
  let text = plain(label);
  const most = Math.floor((left - 10) / 6.6);
  if (text.length > most) text = `…${text.slice(-most + 1)}`;
  ctx.fillText(text, 0, y + height / 2);
}

function drawHead(ctx, look, map, w) {
  ctx.fillStyle = look.getPropertyValue("--page");
  ctx.fillRect(0, 0, w, CELL.head);
  ctx.fillStyle = look.getPropertyValue("--soft");
  ctx.fillText(map.headName, 0, CELL.head / 2);
  const every = Math.max(1, Math.ceil(36 / map.width));
  map.heads.forEach((head, column) => {
    const x = map.left + column * map.width - map.box.scrollLeft;
    if (column % every === 0 && x >= map.left - 1) ctx.fillText(String(head), x, CELL.head / 2);
  });
}

function listenToMap(map, redraw) {
  const { box, rows, left, width, height } = map;
  const cellAt = (event) => {
    const bounds = box.getBoundingClientRect();
    const r = Math.floor((event.clientY - bounds.top + box.scrollTop - CELL.head) / height);
    const column = Math.floor((event.clientX - bounds.left + box.scrollLeft - left) / width);
    const cell = rows[r]?.cells.find((one) => one.column === column);
    return cell ? { r, cell } : null;
  };
  const tell = () => {
    const { cell, r } = map.cursor;
    app.cursor = { round: cell.round.round, place: cell.place };
    const problem = map.run.problems[cell.round.problems[cell.place]][0];
    map.told.replaceChildren(`Round ${cell.round.round}, row ${r + 1}: `, el("span", { text: problem }), ` · ${cell.right} of ${cell.graded} right`);
    redraw();
  };
  box.addEventListener("pointermove", (event) => { const found = cellAt(event); if (found) { map.cursor = found; tell(); } });
  box.addEventListener("click", (event) => { const found = cellAt(event); if (found) openCell(found.cell); });
  box.addEventListener("focus", () => { if (!map.cursor && rows[0]) { map.cursor = { r: 0, cell: rows[0].cells[0] }; tell(); } });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && map.cursor) { openCell(map.cursor.cell); return; }
    const moved = movedCursor(map, event.key);
    if (!moved) return;
    event.preventDefault();
    event.stopPropagation();
    map.cursor = moved;
    const y = moved.r * height, x = moved.cell.column * width;
    if (y < box.scrollTop) box.scrollTop = y;
    if (y > box.scrollTop + box.clientHeight - CELL.head - 2 * height) box.scrollTop = y - box.clientHeight + CELL.head + 2 * height;
    if (x < box.scrollLeft) box.scrollLeft = x;
    if (x > box.scrollLeft + box.clientWidth - left - 2 * width) box.scrollLeft = x - box.clientWidth + left + 2 * width;
    tell();
  });
}

/** Up and down go to the nearest cell of the next row; left and right along a row. */
function movedCursor(map, key) {
  const { rows, cursor } = map;
  if (!cursor || !/^Arrow(Up|Down|Left|Right)$/.test(key)) return null;
  const cells = rows[cursor.r].cells;
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = cells[cells.indexOf(cursor.cell) + (key === "ArrowRight" ? 1 : -1)];
    return next ? { r: cursor.r, cell: next } : cursor;
  }
  const r = cursor.r + (key === "ArrowDown" ? 1 : -1);
  if (!rows[r]) return cursor;
  const away = (cell) => Math.abs(cell.column - cursor.cell.column);
  return { r, cell: rows[r].cells.reduce((a, b) => (away(b) < away(a) ? b : a)) };
}

function openCell(cell) {
  go({ page: "rollouts", run: runNumber(), round: cell.round.round, group: cell.place, sample: "" }, { step: true });
}
