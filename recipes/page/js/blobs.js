// Rounds, unpacked when they are looked at: the other side of blobs.py.

const MOST_UNPACKED = 40;
const unpacked = new Map();

/** A round's groups, as a promise. Throws if the page does not hold it. */
function loadRound(run, round) {
  const told = app.state.runs[run].rounds.find((one) => one.round === round);
  const key = `${run}-${round}-${told && told.trained}`;
  if (!unpacked.has(key)) {
    const blob = fetchBlob(`round-${run}-${round}`, `/round/${run}/${round}`).then(gunzip);
    unpacked.set(key, Promise.all([blob, loadPieces(run)]).then(([bytes, pieces]) => unpack(bytes, pieces)));
    unpacked.get(key).catch(() => unpacked.delete(key));
    if (unpacked.size > MOST_UNPACKED) unpacked.delete(unpacked.keys().next().value);
  }
  return unpacked.get(key);
}

const pieces = new Map();

/** What a run's tokens are made of: texts (or bytes) by id, and the special ids. */
function loadPieces(run) {
  if (!app.state.runs[run].has_tokens) return Promise.resolve(null);
  if (!pieces.has(run)) {
    pieces.set(run, fetchBlob(`pieces-${run}`, `/pieces/${run}`).then(gunzip).then((bytes) => {
      const told = JSON.parse(new TextDecoder().decode(bytes));
      const of = [];
      told.ids.forEach((id, i) => { of[id] = told.pieces[i]; });
      return { of, special: new Set(told.special) };
    }));
    pieces.get(run).catch(() => pieces.delete(run));
  }
  return pieces.get(run);
}

/** Bytes of the page's element of an id, or of the server's answer. */
async function fetchBlob(id, path) {
  if (app.state.serve) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const node = document.getElementById(id);
  if (!node) throw new Error("it is not in this page");
  const binary = atob(node.textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Header and planes; each rollout gets its place in them. */
function unpack(bytes, known) {
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const round = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  round.hasTokens = round.id_planes !== undefined;
  if (!round.hasTokens) return round;
  Object.assign(round, { pieces: known.of, special: known.special });
  let ids = 0, after = 0;
  for (const group of round.groups) {
    group.firstId = ids;
    ids += group.prompt_tokens;
    for (const rollout of group.rollouts) {
      Object.assign(rollout, { firstId: ids, first: after });
      ids += rollout.tokens;
      after += rollout.tokens;
    }
  }
  let from = 4 + size;
  const plane = (length) => bytes.subarray(from, (from += length));
  round.idPlanes = Array.from({ length: round.id_planes }, () => plane(ids));
  round.logprobs = plane(after);
  round.ratios = round.has_trainer ? plane(after) : null;
  return round;
}

/** The id of a token. */
function idAt(round, place) {
  const [low, high, top] = round.idPlanes;
  return low[place] + (high[place] << 8) + (top ? top[place] << 16 : 0);
}

/** logprob of a code; null for none. */
function logprobOf(code) {
  return code === 255 ? null : -20 * (code / 254) ** 2;
}

/** log pi - log mu of a code; null for none. */
function ratioOf(code) {
  return code === 255 ? null : 2 * ((code - 127) / 127) * Math.abs((code - 127) / 127);
}
