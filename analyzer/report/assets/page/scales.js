// From values to places 0…1, and ticks at round numbers.

const span = (values) => {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
};

/** Bounds moved apart where they are too close to tell ticks between them. */
const apart = (low, high) => {
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (high - low > Math.max(size * 1e-9, 1e-290)) return [low, high];
  const half = size > 1e-290 ? size * 0.1 : 0.5;
  return [low - half, high + half];
};

const scale = (low, high, log, room = 0) => {
  const place = log ? (value) => Math.log10(Math.max(value, 1e-300)) : (value) => value;
  const [from, to] = apart(place(low), place(high));
  const pad = (to - from) * room;
  const [start, end] = [from - pad, to + pad];
  return {
    log, low: start, high: end,
    unit: (value) => (place(value) - start) / (end - start),
    value: (unit) => (log ? 10 ** (start + unit * (end - start)) : start + unit * (end - start)),
  };
};

const roundStep = (rough) => {
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * magnitude >= rough * 0.999) * magnitude;
};

const tickLabel = (value, step) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e9) return Number(value.toPrecision(4)).toExponential().replace("e+", "e");
  if (size >= 1e6 || step >= 1e5) return `${Number((value / 1e6).toPrecision(6))}M`;
  if (size >= 1e4 || step >= 5e3) return `${Number((value / 1e3).toPrecision(6))}k`;
  if (size < 1e-3) return Number(value.toPrecision(4)).toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(8)));
};

/** About `count` ticks: [place 0…1, label]. */
const ticks = (axis, count) => {
  const { low, high } = axis;
  if (!axis.log) {
    const step = roundStep((high - low) / count);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
      found.push([(i * step - low) / (high - low), tickLabel(Number((i * step).toPrecision(12)), step)]);
    }
    return found;
  }
  const stride = Math.max(1, Math.ceil((Math.floor(high) - Math.ceil(low) + 1) / (count + 1)));
  const found = [];
  for (let power = Math.ceil(low); power <= high; power += stride) {
    const label = power >= -3 && power <= 4 ? String(Number((10 ** power).toPrecision(3))) : `1e${power}`;
    found.push([(power - low) / (high - low), label]);
  }
  if (found.length >= 2) return found;
  const factors = [2, 5].flatMap((f) => [Math.floor(low), Math.floor(high)].map((p) => Math.log10(f) + p));
  const between = factors.filter((p) => p >= low && p <= high);
  const more = [...new Set(between)].map((p) => [(p - low) / (high - low), String(Number((10 ** p).toPrecision(3)))]);
  return [...found, ...more].sort((a, b) => a[0] - b[0]);
};
