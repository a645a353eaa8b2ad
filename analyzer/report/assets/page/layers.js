// A checkpoint's tensors and logged histograms: strips of colour in depth, and the numbers behind them.

const [PLACE, LABELLED, SHAPE, DTYPE, MEAN, STD, MIN, MAX, ZEROS, BROKEN, SCALE, DEAD, GROWTH, QUANTILES] = Array(14).keys();
const STRIP_LABEL = 190; // pixels

const share = (value) => (value === null ? "–" : `${Math.round(value * 100)}%`);
const shown = (value) => (value === null ? "–" : number(Number(value.toPrecision(3))));
const times = (value) => (value === null ? "–" : `×${shown(value)}`);

// Each measure: its name, its place in a row, words for a value, and how bad it is, -1…1 for too small…too large.
const decades = (value, width) => Math.max(-1, Math.min(1, Math.log10(value) / width));
const MEASURES = [
  ["Spread × √fan-in", SCALE, shown, (v) => (v > 0 ? decades(v, 1.5) : -1)],
  ["Norm since first checkpoint", GROWTH, times, (v) => (v > 0 ? decades(v, 1) : -1)],
  ["Zeros", ZEROS, share, (v) => v],
  ["Dead units", DEAD, share, (v) => v],
  ["NaN or Inf", BROKEN, shown, (v) => (v > 0 ? 1 : 0)],
];

const strip = ([name, key, words, badness], rows, width) => {
  const cell = (width - STRIP_LABEL) / rows.length;
  const cells = rows.map((row, i) => {
    const value = row[key];
    const degree = value === null ? 0 : badness(value);
    const style = value === null ? "cell absent" : `cell ${degree < 0 ? "low" : "high"}`;
    return svg("rect", { class: style, x: STRIP_LABEL + i * cell, y: 3, width: Math.max(0.5, cell - (cell > 4 ? 1 : 0)), height: 18,
      "fill-opacity": value === null ? null : (0.06 + 0.94 * Math.abs(degree)).toFixed(2) },
      svg("title", {}, `${pooled(row[LABELLED])}: ${name.toLowerCase()} ${words(value)}`));
  });
  return svg("svg", { class: "strip", viewBox: `0 0 ${width} 24`, role: "img", "aria-label": `${name} of ${counted(rows.length, "tensor")}, first layer to last` },
    svg("text", { x: 0, y: 16 }, name), cells);
};

const heatStrips = (layers) => {
  const rows = [...layers.rows].sort((a, b) => a[PLACE] - b[PLACE]);
  const telling = MEASURES.filter(([, key]) => rows.some((row) => row[key] !== null && (row[key] > 0 || key === SCALE)));
  if (rows.length < 2 || !telling.length) return null;
  return h("div", { class: "strips" }, telling.map((measure) => strip(measure, rows, 860)),
    h("p", { class: "muted" }, "First layer at the left, last at the right. Orange is large, blue is small, pale is ordinary; the table has the numbers."));
};

/** The spread of a tensor from its quantiles: range, middle 90 %, middle half, median. */
const spreadOf = (row, widest) => {
  const [q01, q05, q25, q50, q75, q95, q99] = row[QUANTILES];
  if (q99 === undefined) return null;
  const place = (v) => 60 + (Math.sign(v) * Math.sqrt(Math.abs(v) / widest)) * 58;
  const bar = (from, to, y, height, style) =>
    svg("rect", { class: style, x: place(from), y, width: Math.max(1, place(to) - place(from)), height });
  return svg("svg", { class: "spread", width: 120, height: 16, "aria-hidden": "true" },
    svg("line", { x1: 60, x2: 60, y1: 0, y2: 16 }),
    bar(q01, q99, 7, 2, "whole"), bar(q05, q95, 5, 6, "most"), bar(q25, q75, 3, 10, "half"),
    svg("line", { class: "median", x1: place(q50), x2: place(q50), y1: 2, y2: 14 }));
};

const layerTable = (layers) => {
  const all = layers.rows.flatMap((row) => row[QUANTILES]).filter((v) => v !== null);
  const widest = Math.max(1e-30, ...span(all).map(Math.abs).filter(Number.isFinite));
  const grown = layers.rows.some((row) => row[GROWTH] !== null);
  const rows = layers.rows.map((row) => h("tr", { class: row[BROKEN] > 0 && "broken" },
    h("th", { scope: "row" }, h("code", {}, pooled(row[LABELLED]))),
    h("td", {}, pooled(row[SHAPE])), h("td", {}, pooled(row[DTYPE])), h("td", {}, spreadOf(row, widest)),
    [MEAN, STD, MIN, MAX].map((key) => h("td", { class: "n" }, shown(row[key]))),
    h("td", { class: "n" }, share(row[ZEROS])), h("td", { class: "n" }, shown(row[BROKEN])),
    grown && h("td", { class: "n" }, times(row[GROWTH]))));
  const names = ["Tensor", "Shape", "Type", "Distribution", "|Mean", "|Std", "|Min", "|Max", "|Zeros", "|NaN, Inf"];
  const hidden = layers.count - layers.rows.length;
  return [
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Tensors" },
      h("table", { class: "layers", title: "Distribution: middle 98 %, 90 % and 50 % of the values, and the median" }, head(...names, ...(grown ? ["|Norm since first"] : [])), h("tbody", {}, rows))),
    hidden > 0 && h("p", { class: "muted" }, `and ${counted(hidden, "more tensor")}, all less conspicuous`),
  ];
};

/** A logged histogram over the steps: darker where more elements are. */
const heatMap = (histogram) => {
  const shares = new Uint8Array(bytes(histogram.shares));
  const frames = histogram.steps.length;
  const buckets = shares.length / frames;
  const [width, height] = [260, 84];
  const cells = [];
  shares.forEach((value, i) => {
    if (value === 0) return;
    const [frame, bucket] = [Math.floor(i / buckets), i % buckets];
    cells.push(svg("rect", { class: "cell high", x: (frame / frames) * width, y: height - ((bucket + 1) / buckets) * height,
      width: width / frames + 0.4, height: height / buckets + 0.4, "fill-opacity": (0.08 + (0.92 * value) / 255).toFixed(2) }));
  });
  const name = pooled(histogram.tag);
  const range = `${number(Number(histogram.low.toPrecision(3)))} … ${number(Number(histogram.high.toPrecision(3)))}`;
  const steps = `steps ${number(histogram.steps[0])}–${number(histogram.steps[frames - 1])}`;
  return h("figure", { class: "heat" }, h("figcaption", {}, h("code", {}, name), h("small", {}, ` ${range}, ${steps}`)),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Histogram of ${name} over ${steps}, values ${range}` }, cells));
};
