// Code to copy: coloured, in tabs by framework.

const KEYWORDS = new Set(("and as assert async await break class continue def del elif else except False finally for " +
  "from global if import in is lambda None nonlocal not or pass raise return True try while with yield").split(" "));
const TOKEN = new RegExp([
  "(?<comment>#[^\\n]*)",
  "(?<string>[rbfuRBFU]{0,2}(?:'''[^]*?'''|\"\"\"[^]*?\"\"\"|'(?:\\\\.|[^'\\\\\\n])*'|\"(?:\\\\.|[^\"\\\\\\n])*\"))",
  "(?<number>\\b(?:\\d[\\d_]*\\.?\\d*(?:[eE][+-]?\\d+)?|\\.\\d+)\\b)",
  "(?<decorator>^[ \\t]*@[\\w.]+)",
  "(?<call>\\b[A-Za-z_]\\w*(?=\\())",
  "(?<word>\\b[A-Za-z_]\\w*)",
].join("|"), "gm");

/** Python as spans by kind of token; the text itself stays as it is. */
const highlighted = (code) => {
  const parts = [];
  let done = 0;
  for (const match of code.matchAll(TOKEN)) {
    let [kind] = Object.entries(match.groups).find(([, text]) => text !== undefined);
    if (KEYWORDS.has(match[0])) kind = "keyword";
    if (match.index > done) parts.push(code.slice(done, match.index));
    parts.push(kind === "word" ? match[0] : h("span", { class: `t-${kind}` }, match[0]));
    done = match.index + match[0].length;
  }
  parts.push(code.slice(done));
  return parts;
};

const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "unseen", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy"); // where the clipboard is closed to pages from a file
    field.remove();
    return copied;
  }
};

const copyButton = (text, label = "Copy") => {
  const button = h("button", { type: "button", class: "copy" }, label);
  button.addEventListener("click", async () => {
    const done = await copyText(text);
    button.focus();
    button.textContent = done ? "Copied" : "Not copied";
    say(button.textContent);
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
};

const codeBlock = (code) =>
  h("div", { class: "code" }, h("pre", { tabindex: "0" }, h("code", {}, highlighted(code))), copyButton(code));

// The framework chosen once is chosen everywhere.
let framework = null;
let tabs = 0;

const chooseFramework = (name) => {
  framework = name;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    if ([...tab.parentElement.children].some((t) => t.dataset.framework === name)) tab.show(tab.dataset.framework === name);
  }
};

/** Snippets [[framework, code]] as tabs; arrows move between them. */
const snippetTabs = (snippets) => {
  const prefix = `tabs-${tabs += 1}`;
  const chosen = Math.max(0, snippets.findIndex(([name]) => name === framework));
  const panes = snippets.map(([name, code], i) =>
    h("div", { role: "tabpanel", id: `${prefix}-pane-${i}`, "aria-labelledby": `${prefix}-tab-${i}`, hidden: i !== chosen }, codeBlock(code)));
  const buttons = snippets.map(([name], i) => {
    const tab = h("button", {
      type: "button", role: "tab", id: `${prefix}-tab-${i}`, "aria-controls": `${prefix}-pane-${i}`,
      "data-framework": name, onclick: () => chooseFramework(name),
    }, data.frameworks[name] ?? name);
    tab.show = (on) => {
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      panes[i].hidden = !on;
    };
    tab.show(i === chosen);
    return tab;
  });
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = buttons.indexOf(document.activeElement);
    const next = Number.isFinite(step) ? (at + step + buttons.length) % buttons.length : step < 0 ? 0 : buttons.length - 1;
    buttons[next].focus();
    chooseFramework(buttons[next].dataset.framework);
  };
  return h("div", { class: "tabs" },
    h("div", { role: "tablist", "aria-label": "Framework", onkeydown: move }, buttons), panes);
};
