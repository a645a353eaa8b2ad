"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Search, filter and sort: the page is complete without them, so the tools stay hidden without us.
  const toolbar = document.getElementById("toolbar");
  const table = document.getElementById("runs");
  if (toolbar && table) {
    const rows = all("tbody tr", table);
    const search = toolbar.querySelector("input");
    const buttons = all("button[data-verdict]", toolbar);
    const empty = document.getElementById("no-match");
    const update = () => {
      const wanted = search.value.trim().toLowerCase();
      const verdicts = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict);
      let shown = 0;
      for (const row of rows) {
        const match = row.textContent.toLowerCase().includes(wanted)
          && (verdicts.length === 0 || verdicts.includes(row.dataset.verdict));
        row.hidden = !match;
        document.getElementById("section-" + row.dataset.run).hidden = !match;
        shown += match;
      }
      empty.hidden = shown > 0;
    };
    search.addEventListener("input", update);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
        update();
      });
    }
    all("th[data-sort]", table).forEach((head) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[head.cellIndex].dataset.key;
        const numeric = head.dataset.sort === "number";
        rows.sort((a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true })));
        if (!up) rows.reverse();
        table.tBodies[0].append(...rows);
      });
    });
    toolbar.hidden = false;
  }

  // A link to a run unfolds it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.closest("details");
    if (details) {
      details.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();

  // The framework chosen once is chosen everywhere.
  document.addEventListener("change", (event) => {
    const framework = event.target.dataset.framework;
    if (framework) all(`input[data-framework="${CSS.escape(framework)}"]`).forEach((input) => { input.checked = true; });
  });

  for (const code of all(".code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.querySelector("code").textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code.querySelector("code"));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    code.append(button);
  }

  // Paper cannot be unfolded.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = all("details:not([open])");
    unfolded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => unfolded.forEach((details) => { details.open = false; }));
})();
