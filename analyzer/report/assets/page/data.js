// The report's data: one JSON document, its texts pooled, its curves packed.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;

/** A text or a list of the pool. */
const pooled = (index) => data.pool[index];

/** The texts that a pooled list names. */
const texts = (index) => pooled(index).map(pooled);

const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;

const unpackSteps = (packed, count) => {
  const [first, kind, gaps] = packed;
  if (gaps === undefined) return Array.from({ length: count }, (_, i) => first + i * kind);
  const found = kind === "u2" ? new Uint16Array(bytes(gaps)) : new Float64Array(bytes(gaps));
  const steps = [first];
  for (const gap of found) steps.push(steps[steps.length - 1] + gap);
  return steps;
};

const unpackCurve = (packed) => {
  const y = Array.from(new Float32Array(bytes(packed.y)));
  return { x: unpackSteps(packed.x, y.length), y };
};

/** The curve of a series, unpacked when first asked for; `median` is its smooth line or null. */
const curveOf = (series) => {
  series.curve ??= { ...unpackCurve(series), median: series.median ? unpackCurve(series.median) : null };
  return series.curve;
};

// A run is named by its name, and by its place too where several have the same.
const namesakes = new Map();
for (const run of runs) namesakes.set(run.name, (namesakes.get(run.name) ?? 0) + 1);
runs.forEach((run, place) => {
  run.place = place;
  run.key = namesakes.get(run.name) > 1 ? `${run.name}~${place + 1}` : run.name;
});
const runOf = new Map(runs.map((run) => [run.key, run]));

const VERDICTS = ["critical", "warning", "info", "healthy", "not-assessed"];

/** Five digits, plain where that is short. */
const number = (value) => {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) return String(Number(value.toPrecision(5)));
  return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
};

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
