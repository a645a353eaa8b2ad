// What the page holds: an index of all runs, and their details in compressed chunks that are opened on demand.

const data = JSON.parse(document.getElementById("data").textContent);
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const digit = Object.fromEntries([...DIGITS].map((character, value) => [character, value]));
const opened = new Map();

const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
};

/** The details of run i, or null where they are on another page. */
const detailsOf = async (i) => {
  const chunk = Math.floor(i / data.chunk);
  if (chunk >= data.chunks.length) return null;
  if (!opened.has(chunk)) opened.set(chunk, unpack(data.chunks[chunk]));
  return (await opened.get(chunk))[i % data.chunk];
};

/** Points of a packed curve in a box of the given size: two digits across, two up. */
const curvePath = (text, width, height) => {
  let path = "";
  const at = (k) => (digit[text[k]] * 64 + digit[text[k + 1]]) / 4095;
  for (let k = 0; k + 3 < text.length; k += 4) {
    const x = at(k) * width;
    const y = (1 - at(k + 2)) * height;
    path += `${path ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return path;
};

/** A thumbnail: one digit for each of equally many steps, a space where there is no value. */
const thumbPath = (text, width, height) => {
  let path = "", drawing = false;
  [...text].forEach((character, k) => {
    if (character === " ") { drawing = false; return; }
    const x = (k / Math.max(1, text.length - 1)) * width;
    const y = (1 - digit[character] / 63) * height;
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  return path;
};

const shown = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
};
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)}%`);
