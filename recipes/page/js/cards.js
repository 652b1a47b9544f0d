// One completion: its verdict and parts, and its tokens, coloured.

const FIRST_TOKENS = 1500;
const MORE_TOKENS = 5000;
const FIRST_CHARACTERS = 6000;

/** The card of a completion. `round` is unpacked; `match` says whether it passes the filters. */
function card(round, rollout, sample, { colouring, match, told, versions }) {
  const place = VERDICTS.findIndex(([name]) => name === rollout.verdict);
  const parts = Object.entries(rollout.parts);
  const body = el("div", { class: "text", dir: "auto" });
  const node = el("article", { class: `card completion${match === false ? " dim" : ""}`, tabindex: 0, id: `sample-${sample}`, "aria-label": `Completion ${sample + 1}, ${VERDICTS[place]?.[1] ?? "unknown"}, reward ${shown(rollout.value)}` },
    el("header", {},
      el("span", { class: "verdict", css: { "--v": verdictFill(Math.max(0, place)) } }, `${VERDICT_SIGNS[Math.max(0, place)] ?? "!"} ${VERDICTS[place]?.[1] ?? rollout.verdict}`),
      el("b", { class: "value" }, shown(rollout.value)),
      el("a", { class: "soft", href: linkTo({ ...app.view, sample }), title: "a link to this completion" }, `#${sample + 1}`),
      el("span", { class: "soft" }, `${counted(rollout.sampled, "token")}${rollout.finish === "length" ? ` · cut off at ${rollout.limit}` : ""}`)),
    parts.length > 1 || (parts[0] && parts[0][1] !== rollout.value)
      ? el("p", { class: "parts" }, parts.map(([name, value]) => el("span", {}, el("span", { text: name }), " ", el("b", {}, shown(value))))) : null,
    body,
    el("footer", {}, [`mean logprob ${shown(rollout.logprob)}`, rollout.advantage === undefined ? null : `advantage ${shown(rollout.advantage)}`,
      versions && weightsOf(rollout)].filter(Boolean).join(" · ")));
  fillText(body, round, rollout, colouring);
  listenToTokens(node, body, round, rollout, told);
  return node;
}

/** Which weights drew it: several if they changed on the way. */
function weightsOf(rollout) {
  return rollout.versions.length ? `weights v${rollout.versions.join(", v")}` : "";
}

const VERDICT_SIGNS = ["✓", "✗", "–", "~", "▲", "◷", "▣", "!", "!", "!"];

function fillText(body, round, rollout, colouring) {
  body.replaceChildren();
  if (rollout.prefill) body.append(el("span", { class: "prefill", text: rollout.prefill }));
  if (!round.hasTokens) { fillPlain(body, rollout.text, 0); return; }
  const show = (from, to) => {
    body.append(tokenSpans(round, rollout, from, to, colouring));
    markHits(body, round, rollout, from, to);
    if (to < rollout.tokens) body.append(more(rollout.tokens - to, "token", () => show(to, Math.min(rollout.tokens, to + MORE_TOKENS))));
  };
  show(0, Math.min(rollout.tokens, FIRST_TOKENS));
  if (!rollout.tokens) body.append(el("span", { class: "soft" }, "nothing was sampled"));
}

function fillPlain(body, text, from) {
  // Never between the halves of one character.
  let to = Math.min(text.length, from + FIRST_CHARACTERS);
  if (to < text.length && text.charCodeAt(to - 1) >= 0xd800 && text.charCodeAt(to - 1) < 0xdc00) to += 1;
  put(body, text.slice(from, to));
  if (to < text.length) body.append(more(text.length - to, "character", () => fillPlain(body, text, to)));
  if (!text) body.append(el("span", { class: "soft" }, "an empty text"));
}

function more(left, noun, act) {
  const button = el("button", { type: "button", class: "more-tokens", on: { click: () => { button.remove(); act(); } } }, `${counted(left, noun)} more`);
  return button;
}

/** Tokens that overlap what is searched for. */
function markHits(body, round, rollout, from, to) {
  const needle = (app.view.text ?? "").toLowerCase();
  if (!needle) return;
  const texts = textsOf(round, rollout.firstId, rollout.tokens).map((text) => text.toLowerCase());
  const whole = texts.join("");
  const hit = new Set();
  let start = 0;
  const starts = texts.map((text) => (start += text.length) - text.length);
  for (let at = whole.indexOf(needle); at >= 0; at = whole.indexOf(needle, at + needle.length)) {
    starts.forEach((s, i) => { if (s < at + needle.length && s + texts[i].length > at) hit.add(i); });
  }
  for (const span of body.querySelectorAll(".tok")) {
    const i = Number(span.dataset.i);
    if (i >= from && i < to && hit.has(i)) span.classList.add("hit");
  }
}

/** What is known of a token, under the pointer or the arrow keys. */
function listenToTokens(node, body, round, rollout, told) {
  if (!round.hasTokens) return;
  let at = -1;
  const tell = (span) => {
    for (const old of document.querySelectorAll(".tok.now")) old.classList.remove("now");
    span.classList.add("now");
    at = Number(span.dataset.i);
    told(tokenTold(round, rollout, at));
  };
  body.addEventListener("pointerover", (event) => {
    const span = event.target.closest(".tok");
    if (span) tell(span);
  });
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.target !== node) return;
    event.preventDefault();
    event.stopPropagation();
    const span = body.querySelector(`.tok[data-i="${Math.max(0, at + step)}"]`);
    if (span) { tell(span); span.scrollIntoView({ block: "nearest" }); }
  });
}
