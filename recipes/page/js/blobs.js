// Rounds, unpacked when they are looked at: the other side of blobs.py.

const MOST_UNPACKED = 40;
const unpacked = new Map();

/** A round's groups, as a promise. Throws if the page does not hold it. */
function loadRound(run, round) {
  const told = app.state.runs[run].rounds.find((one) => one.round === round);
  const key = `${run}-${round}-${told && told.trained}`;
  if (!unpacked.has(key)) {
    unpacked.set(key, fetchBlob(run, round).then(gunzip).then(unpack));
    unpacked.get(key).catch(() => unpacked.delete(key));
    if (unpacked.size > MOST_UNPACKED) unpacked.delete(unpacked.keys().next().value);
  }
  return unpacked.get(key);
}

async function fetchBlob(run, round) {
  if (app.state.serve) {
    const answer = await fetch(`/round/${run}/${round}`);
    if (!answer.ok) throw new Error(`round ${round}: the server answers ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const node = document.getElementById(`round-${run}-${round}`);
  if (!node) throw new Error(`round ${round} is not in this page`);
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
function unpack(bytes) {
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const round = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  round.hasTokens = round.pieces !== undefined;
  if (!round.hasTokens) return round;
  round.special = new Set(round.special);
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

/** The round's own number of a token. */
function idAt(round, place) {
  return round.idPlanes.reduce((sum, plane, n) => sum + plane[place] * 256 ** n, 0);
}

/** logprob of a code; null for none. */
function logprobOf(code) {
  return code === 255 ? null : -20 * (code / 254) ** 2;
}

/** log pi - log mu of a code; null for none. */
function ratioOf(code) {
  return code === 255 ? null : 2 * ((code - 127) / 127) * Math.abs((code - 127) / 127);
}
