// Tokens as text, and as coloured spans.

const COLOURINGS = [
  ["none", "plain"], ["logprob", "logprob"], ["ratio", "ratio"], ["advantage", "advantage"],
];
const COLOURING_MEANS = {
  none: "Text as it was sampled.",
  logprob: "The stronger, the less likely the token was to the policy that drew it.",
  ratio: "Trainer's probability over the sampler's: blue is more likely to the trainer, orange less.",
  advantage: "Blue tokens are made more likely by the update, orange ones less.",
};

/** The texts of some tokens; one that ends within a character has it with its last token. */
function textsOf(round, first, count) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const encoder = new TextEncoder();
  const texts = new Array(count);
  let pending = false;
  for (let i = 0; i < count; i++) {
    const piece = round.pieces[idAt(round, first + i)] ?? "\ufffd";
    if (typeof piece === "string" && !pending) texts[i] = piece;
    else {
      const isText = typeof piece === "string";
      const bytes = isText ? encoder.encode(piece) : Uint8Array.from(piece);
      texts[i] = decoder.decode(bytes, { stream: true });
      pending = !isText;
    }
  }
  if (pending && count) texts[count - 1] += decoder.decode();
  return texts;
}

/** A completion's text without special tokens, for searching. */
function textOf(round, rollout) {
  if (!round.hasTokens) return rollout.text;
  let text = "";
  const texts = textsOf(round, rollout.firstId, rollout.tokens);
  for (let i = 0; i < texts.length; i++) {
    if (!round.special.has(idAt(round, rollout.firstId + i))) text += texts[i];
  }
  return text;
}

/** [hue variable, strength 0..1] of a token. */
function tint(colouring, logprob, ratio, advantage) {
  const signed = (value, full) => [value < 0 ? "--low" : "--high", Math.min(1, Math.abs(value) / full)];
  if (colouring === "logprob" && logprob !== null) return ["--low", Math.min(1, -logprob / 8)];
  if (colouring === "ratio" && ratio !== null) return signed(ratio, 0.5);
  if (colouring === "advantage" && advantage !== undefined) return signed(advantage, 2);
  return ["--low", 0];
}

/** The values at the ends of a colouring's scale, and steps between them. */
const SCALES = {
  logprob: ["−8", "0", [-8, -5, -2.5, -1, -0.25, 0].map((v) => [v, null, undefined])],
  ratio: ["0.6", "1.65", [-0.5, -0.2, -0.05, 0, 0.05, 0.2, 0.5].map((v) => [null, v, undefined])],
  advantage: ["−2", "2", [-2, -0.8, -0.2, 0, 0.2, 0.8, 2].map((v) => [null, null, v])],
};

/** The scale of a colouring. */
function colourScale(colouring) {
  if (!SCALES[colouring]) return null;
  const [low, high, steps] = SCALES[colouring];
  const boxes = steps.map((values) => {
    const box = el("i");
    paint(box, tint(colouring, ...values));
    return box;
  });
  return el("span", { class: "scale-line" }, `${low} `, el("span", { class: "scale", "aria-hidden": "true" }, boxes), ` ${high}`);
}

/** Background of a strength; text stays readable on it. */
function paint(node, [hue, strength]) {
  const share = strength < 0.01 ? 0 : Math.round(6 + 58 * Math.sqrt(strength));
  node.style.background = share ? `color-mix(in srgb, var(${hue}) ${share}%, transparent)` : "";
}

/** Spans of a completion's tokens [from, to); each knows its place as data-i. */
function tokenSpans(round, rollout, from, to, colouring) {
  const spans = document.createDocumentFragment();
  const texts = textsOf(round, rollout.firstId, rollout.tokens);
  for (let i = from; i < to; i++) {
    const span = el("span", { class: "tok", "data-i": i });
    const special = round.special.has(idAt(round, rollout.firstId + i));
    if (special) span.classList.add("special");
    if (special || texts[i] === "") put(span, texts[i] || "·");
    else putToken(span, texts[i]);
    paint(span, tokenTint(round, rollout, i, colouring));
    spans.append(span);
  }
  return spans;
}

function tokenTint(round, rollout, i, colouring) {
  const logprob = logprobOf(round.logprobs[rollout.first + i]);
  const ratio = round.ratios ? ratioOf(round.ratios[rollout.first + i]) : null;
  return tint(colouring, logprob, ratio, logprob === null ? undefined : rollout.advantage);
}

/** Line breaks are tokens too: they are shown, and break. */
function putToken(span, text) {
  const lines = text.split("\n");
  lines.forEach((line, n) => {
    put(span, line);
    if (n < lines.length - 1) {
      span.append(el("span", { class: "esc", "aria-hidden": "true" }, "↵"), "\n");
    }
  });
}

/** What is known of one token, in words, part by part. */
function tokenTold(round, rollout, i) {
  const place = rollout.firstId + i;
  const text = textsOf(round, rollout.firstId, rollout.tokens)[i];
  const logprob = logprobOf(round.logprobs[rollout.first + i]);
  const told = [`token ${i + 1} of ${rollout.tokens}`, `“${text.replaceAll("\n", "↵")}”`, `id ${idAt(round, place)}`];
  if (logprob === null) return [...told, "not sampled"];
  told.push(`logprob ${trimmed(logprob, 2)}`, `probability ${shown(Math.exp(logprob), "frac")}`);
  const ratio = round.ratios ? ratioOf(round.ratios[rollout.first + i]) : null;
  if (ratio !== null) told.push(`ratio ${trimmed(Math.exp(ratio), 3)}`);
  if (rollout.advantage !== undefined) told.push(`advantage ${shown(rollout.advantage)}`);
  return told;
}
