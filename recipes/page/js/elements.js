// Elements and text. Nothing a run says is ever parsed as markup: it is set as text, and
// characters that hide, reorder or break text are spelled out.

const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000B-\\u001F\\u007F-\\u009F\\u00AD\\u034F\\u061C\\u115F\\u1160\\u17B4\\u17B5" +
  "\\u180B-\\u180E\\u200B-\\u200F\\u2028-\\u202E\\u2060-\\u206F\\u3164\\uFEFF\\uFFA0\\uFFF9-\\uFFFB]" +
  "|[\\uD800-\\uDBFF](?![\\uDC00-\\uDFFF])|(?<![\\uD800-\\uDBFF])[\\uDC00-\\uDFFF]" +
  "|\\uDB40[\\uDC00-\\uDDEF]", "g");

/** How a hidden character is written: \u202E, \r. */
function spelled(character) {
  if (character === "\r") return "\\r";
  const code = character.codePointAt(0);
  const digits = code.toString(16).toUpperCase();
  return code > 0xffff ? `\\u{${digits}}` : `\\u${digits.padStart(4, "0")}`;
}

/** Text with every hidden character spelled out. */
function plain(text) {
  return String(text).replace(HIDDEN, spelled);
}

/** Append hostile text to a node; what is spelled out is marked as such. */
function put(node, text) {
  text = String(text);
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > from) node.append(text.slice(from, match.index));
    const mark = document.createElement("span");
    mark.className = "esc";
    mark.textContent = spelled(match[0]);
    node.append(mark);
    from = match.index + match[0].length;
  }
  if (from < text.length) node.append(text.slice(from));
  return node;
}

/** An element. `props` are attributes; `on` listeners, `css` properties, `text` hostile text. */
function el(tag, props = {}, ...children) {
  return dressed(document.createElement(tag), props, children);
}

/** The same for SVG. */
function svg(tag, props = {}, ...children) {
  return dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function dressed(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [kind, act] of Object.entries(value)) node.addEventListener(kind, act);
    else if (name === "css") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name === "text") put(node, value);
    else node.setAttribute(name, value === true ? "" : plain(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    if (child instanceof Node) node.append(child); else put(node, child);
  }
  return node;
}

/** Tell a screen reader. */
function say(text) {
  document.getElementById("said").textContent = plain(text);
}

/** What a run holds, as text: an answer may be a number, a list or an object. */
function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value) ?? "";
}

/** A number for reading: three digits, thousands apart. */
function shown(value, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (unit === "frac") return `${trimmed(value * 100, 1)}%`;
  if (unit === "bytes") return `${shown(value)} GiB`;
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en").replace("-", "−");
  if (size !== 0 && size < 0.001) return value.toExponential(2).replace(/\.?0*e/, "e").replaceAll("-", "−");
  return trimmed(value, size === 0 ? 0 : 2 - Math.floor(Math.log10(size)));
}

function trimmed(value, digits) {
  const text = value.toFixed(digits);
  return (digits ? text.replace(/\.?0+$/, "") : text).replace(/^-/, "−").replace(/^−0$/, "0");
}

/** "1 round", "2 rounds". */
function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** A function that runs once, when calls have stopped for a while. */
function debounced(act, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}
