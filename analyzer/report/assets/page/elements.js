// Elements are made, never parsed: what comes from a file is text and nothing else.

const SVG = "http://www.w3.org/2000/svg";

const fill = (element, properties, children) => {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
};

/** An HTML element: `h("p", {class: "x", onclick: f}, "text", child)`. */
const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);

const svg = (tag, properties = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), properties, children);

const icon = (verdict) => h("span", { "aria-hidden": "true" }, data.icons[verdict]);

/** A path that may break after each of its slashes. */
const breakable = (path) => path.split("/").flatMap((part, i) => (i ? ["/", h("wbr"), part] : [part]));

const badge = (verdict) => h("span", { class: `badge ${verdict}` }, icon(verdict), ` ${data.words[verdict]}`);

/** A fold whose inside is made when it is first opened. */
const fold = (title, body, { open = false, style = "more" } = {}) => {
  const element = h("details", { class: style }, h("summary", {}, title));
  const fillOnce = () => {
    if (element.open && element.childElementCount === 1) element.append(...[body()].flat());
  };
  element.addEventListener("toggle", fillOnce);
  if (open) {
    element.open = true;
    fillOnce();
  }
  element.unfold = () => {
    element.open = true;
    fillOnce();
  };
  return element;
};

const toggle = (label, pressed, onchange, properties = {}) =>
  h("button", {
    type: "button", class: "toggle", "aria-pressed": String(pressed), ...properties,
    onclick: (event) => {
      const now = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", String(now));
      onchange(now);
    },
  }, label);

/** A table's head: names, those after "|" in a right-aligned column. */
const head = (...names) =>
  h("thead", {}, h("tr", {}, names.map((name) =>
    h("th", { scope: "col", class: name.startsWith("|") && "n" }, name.replace("|", "")))));

// Whatever changes without moving the focus is said here.
const status = h("p", { class: "unseen", role: "status" });
const say = (text) => { status.textContent = text; };
