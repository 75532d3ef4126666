"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables: a heading sorts by its column, again the other way round. Numbers sort by data-v, dashes go last.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim() : parseFloat(cell.dataset.v);
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return 0;
  };
  all("table.sortable th button").forEach((button) => {
    button.addEventListener("click", () => {
      const th = button.parentElement, table = th.closest("table"), body = table.tBodies[0];
      const up = th.getAttribute("aria-sort") !== "ascending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const missing = (value) => value === "–";
      const rows = [...body.rows].map((row, index) => ({ row, index, value: key(row, th.cellIndex) }));
      rows.sort((a, b) => (missing(a.value) - missing(b.value)) || (up ? 1 : -1) * compare(a.value, b.value) || a.index - b.index);
      body.append(...rows.map(({ row }) => row));
    });
  });

  // One strategy, or one control, of a long table at a time.
  all("select[data-column]").forEach((select) => {
    const tables = all("table", select.closest("section, details, div.tables"));
    const show = () => tables.forEach((table) => [...table.tBodies[0].rows].forEach((row) => {
      row.hidden = select.value !== "" && row.cells[select.dataset.column].textContent.trim() !== select.value;
    }));
    select.addEventListener("change", show);
    select.closest(".choose").hidden = false;
    show();
  });

  // The legend takes lines out of all figures of its chapter, and puts them back.
  all(".legend-bar button").forEach((button) => {
    const lines = all(`[data-series="${CSS.escape(button.dataset.line)}"]`, button.closest("article"));
    button.addEventListener("click", () => {
      const off = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!off));
      lines.forEach((line) => line.classList.toggle("off", off));
    });
  });

  // A figure as a file: its legend is in the picture below what the page shows.
  all("button.save").forEach((button) => {
    button.addEventListener("click", () => {
      const svg = document.getElementById(button.dataset.figure).cloneNode(true);
      const [, , width, height] = svg.dataset.full.split(" ");
      svg.setAttribute("viewBox", svg.dataset.full);
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
      const style = document.createElementNS(svg.namespaceURI, "style");
      style.textContent = document.getElementById("figure-style").textContent + ".off{display:none}";
      const paper = document.createElementNS(svg.namespaceURI, "rect");
      for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", "#ffffff"]]) paper.setAttribute(name, value);
      svg.prepend(style, paper);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }));
      link.download = `${button.dataset.figure}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });

  // What a point says, at once and under a finger too; without this script the browser shows it by itself.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  all("svg .mark > title").forEach((title) => {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  });
  const hover = (event) => {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(event.clientX + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${event.clientY > box.height + 24 ? event.clientY - box.height - 14 : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", hover);
  document.addEventListener("pointerdown", hover);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
