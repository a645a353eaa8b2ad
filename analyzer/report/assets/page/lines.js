// A panel's curves as paths: gaps where a value is missing, a smooth line over a noisy one.

const ENOUGH = 40; // points from which a smooth line can be asked for
const SPARSE = 60; // points in view up to which each is a dot

const nearest = (x, step) => {
  let low = 0;
  let high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < step) low = middle;
    else high = middle;
  }
  return Math.abs(x[low] - step) <= Math.abs(x[high] - step) ? low : high;
};

/** The indices [from, to] in view, one more on either side so that lines leave the picture. */
const inView = (x, from, to) => {
  let first = 0;
  while (first < x.length - 1 && x[first + 1] < from) first += 1;
  let last = x.length - 1;
  while (last > 0 && x[last - 1] > to) last -= 1;
  return [first, last];
};

const runningMedian = ({ x, y }) => {
  const half = Math.max(2, Math.round(y.length / 60));
  const middle = y.map((_, i) => {
    const around = y.slice(Math.max(0, i - half), i + half + 1).filter(Number.isFinite).sort((a, b) => a - b);
    return around.length && Number.isFinite(y[i]) ? around[around.length >> 1] : NaN;
  });
  return { x, y: middle };
};

/** The smooth line to draw over a curve, or null: `wanted` is "1", "0" or "" for noisy curves only. */
const smoothed = (curve, wanted) => {
  if (wanted === "0" || (wanted === "" && !curve.median)) return null;
  if (curve.median) return curve.median;
  if (curve.y.length < ENOUGH) return null;
  curve.running ??= runningMedian(curve);
  return curve.running;
};

const drawable = (value, up) => Number.isFinite(value) && (!up.log || value > 0);

/** The line through the points in view; a point on its own is a dot. */
const pathOf = ({ x, y }, frame) => {
  const [first, last] = inView(x, frame.across.low, frame.across.high);
  let path = "";
  let drawing = false;
  for (let i = first; i <= last; i += 1) {
    if (drawable(y[i], frame.up)) {
      path += `${drawing ? "L" : "M"}${frame.x(x[i]).toFixed(1)} ${frame.y(y[i]).toFixed(1)}${drawing ? "" : "h0"}`;
      drawing = true;
    } else drawing = false;
  }
  return path;
};

const dotsOf = ({ x, y }, frame) => {
  const [first, last] = inView(x, frame.across.low, frame.across.high);
  if (last - first >= Math.min(SPARSE, frame.width / 12)) return "";
  let path = "";
  for (let i = first; i <= last; i += 1) {
    if (drawable(y[i], frame.up)) path += `M${frame.x(x[i]).toFixed(1)} ${frame.y(y[i]).toFixed(1)}h0`;
  }
  return path;
};

/** Stretches [from, to] of steps at which NaN or Inf was logged. */
const brokenStretches = ({ x, y }) => {
  const found = [];
  for (let i = 0; i < y.length; i += 1) {
    if (Number.isFinite(y[i])) continue;
    const start = i;
    while (i + 1 < y.length && !Number.isFinite(y[i + 1])) i += 1;
    found.push([x[start], x[i]]);
  }
  return found;
};

const drawLine = (line, place, frame, wanted) => {
  const smooth = smoothed(line.curve, wanted);
  const style = `line ${line.style}`;
  const marks = [
    svg("path", { class: smooth ? `${style} raw` : style, d: pathOf(line.curve, frame) }),
    smooth && svg("path", { class: style, d: pathOf(smooth, frame) }),
    svg("path", { class: `dots ${line.style}`, d: smooth ? "" : dotsOf(line.curve, frame) }),
  ];
  return svg("g", { "data-line": place }, marks.filter(Boolean));
};

const drawBroken = (line, frame) =>
  brokenStretches(line.curve).map(([from, to]) => {
    const [left, right] = [frame.x(from), frame.x(to)].map((x) => Math.min(frame.right, Math.max(frame.left, x)));
    if (frame.x(to) < frame.left || frame.x(from) > frame.right) return null;
    return svg("rect", { class: "nan", x: left, y: frame.top, width: Math.max(right - left, 3), height: 6 },
      svg("title", {}, `${line.label}: NaN or Inf, step ${number(from)}${from === to ? "" : `–${number(to)}`}`));
  });
