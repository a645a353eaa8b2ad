// A finding's evidence on the curve: shaded stretches, ringed points, numbered labels in lanes above.

const LANE = 20; // pixels of one row of labels
const LANES = 4;
const LABEL = 42; // characters
const CHARACTER = 6.4; // pixels
const NARROW = 560; // pixels of a plot; below it the labels stand in a list under the plot

const clipped = (text) => (text.length > LABEL ? `${text.slice(0, LABEL - 1)}…` : text);

const whereOf = ({ first, last }) =>
  first === last ? `step ${number(first)}` : `steps ${number(first)}–${number(last)}`;

/** The place 0…1 of a note's label, and whether its text goes right from there. */
const anchorOf = (note, across) => {
  const [first, last] = [note.first, note.last].map((s) => Math.min(1, Math.max(0, across.unit(s))));
  return first <= 0.58 ? [first, true] : [last, false];
};

const visible = (note, across) => note.last >= across.low && note.first <= across.high;

/** Gives each visible note a `lane` where its label overlaps no other, or none. */
const assignLanes = (notes, across, width) => {
  const taken = Array.from({ length: LANES }, () => []);
  for (const note of notes) {
    note.lane = null;
    if (!visible(note, across)) continue;
    const [at, rightwards] = anchorOf(note, across);
    const size = 26 + (width < NARROW ? 0 : CHARACTER * clipped(note.label).length);
    const start = at * width + (rightwards ? -9 : 9);
    const [left, right] = rightwards ? [start, start + size] : [start - size, start];
    const free = taken.findIndex((lane) => lane.every(([a, b]) => right < a || left > b));
    if (free < 0) continue;
    taken[free].push([left, right]);
    note.lane = free;
  }
  return Math.max(0, ...notes.map((note) => (note.lane === null ? 0 : note.lane + 1)));
};

const drawBand = (note, frame) => {
  if (note.first === note.last || !visible(note, frame.across)) return null;
  const left = Math.max(frame.left, frame.x(note.first));
  const right = Math.min(frame.right, frame.x(note.last));
  return svg("g", { class: `band ${note.severity}`, "data-note": note.number },
    svg("title", {}, `${note.label} (${whereOf(note)})`),
    svg("rect", { x: left, y: frame.top, width: Math.max(2, right - left), height: frame.height }),
    svg("line", { x1: left, x2: right, y1: frame.top + 1, y2: frame.top + 1 }));
};

const ring = (note, frame, lines) => {
  const line = lines.find((l) => l.role === note.role && !l.hidden);
  if (!line || note.first !== note.last) return null;
  const value = line.curve.y[nearest(line.curve.x, note.first)];
  const y = drawable(value, frame.up) ? frame.y(value) : frame.top + 3;
  return svg("circle", { class: "ring", cx: frame.x(note.first), cy: Math.max(frame.top, y), r: 5.5 });
};

const drawNote = (note, frame, lines) => {
  if (!visible(note, frame.across)) return null;
  const [at, rightwards] = anchorOf(note, frame.across);
  const x = frame.left + at * frame.width;
  const y = frame.top - 10 - LANE * (note.lane ?? 0);
  const label = note.lane === null ? [] : [
    svg("circle", { class: "number", cx: x, cy: y, r: 8 }),
    svg("text", { class: "numeral", x, y: y + 4 }, String(note.number)),
  ];
  if (note.lane !== null && frame.width >= NARROW) {
    const side = rightwards ? 13 : -13;
    label.push(svg("text", { class: "label", x: x + side, y: y + 4, "text-anchor": rightwards ? "start" : "end" },
      clipped(note.label)));
  }
  return svg("g", { class: `note ${note.severity}`, "data-note": note.number },
    svg("title", {}, `${note.label} (${whereOf(note)})`),
    svg("line", { class: "lead", x1: x, x2: x, y1: y + 8, y2: frame.bottom }),
    ring(note, frame, lines), label);
};

const noteList = (notes) =>
  h("ol", { class: "notes" }, notes.map((note) =>
    h("li", { class: note.severity, value: note.number }, `${note.label} `, h("small", {}, whereOf(note)))));

/** Where the learning rate was cut or raised, through every panel; named in its own. */
const drawRates = (rates, frame, named) =>
  rates.filter(([step]) => step >= frame.across.low && step <= frame.across.high).map(([step, factor]) => {
    const x = frame.x(step);
    return svg("g", { class: "rate" }, svg("title", {}, `Learning rate ×${factor} at step ${number(step)}`),
      svg("line", { x1: x, x2: x, y1: frame.top, y2: frame.bottom }),
      named && svg("text", { x: x + 4, y: frame.top + 11 }, `×${factor}`));
  });

/** The best point of a held-out curve, where no finding speaks of it already. */
const bestOf = (line) => {
  if (line.better === "unknown" || !/^(val|test|reward)/.test(line.role)) return null;
  const sign = line.better === "higher" ? -1 : 1;
  let best = null;
  line.curve.y.forEach((value, i) => {
    if (Number.isFinite(value) && (best === null || sign * value < sign * line.curve.y[best])) best = i;
  });
  return best === null ? null : { step: line.curve.x[best], value: line.curve.y[best] };
};

const drawBest = (line, frame, notes) => {
  const best = bestOf(line);
  if (!best || !drawable(best.value, frame.up) || best.step < frame.across.low || best.step > frame.across.high) return null;
  if (notes.some((n) => n.role === line.role && n.first === n.last && n.first === best.step)) return null;
  const [x, y] = [frame.x(best.step), frame.y(best.value)];
  return svg("path", { class: `best ${line.style}`, d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` },
    svg("title", {}, `${line.label}: best ${number(best.value)} at step ${number(best.step)}`));
};
