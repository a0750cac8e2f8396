// What a reader can do with any report; its pictures are a file of their own. No library, no network.
"use strict";

const root = document.documentElement;
root.classList.add("js");

// --- colours: before anything is drawn ---------------------------------------------------------

const THEME = "mcatrain-theme";

function storedTheme() {
  try { return localStorage.getItem(THEME) || "auto"; } catch { return "auto"; }  // file: may refuse
}

function useTheme(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
}

useTheme(storedTheme());

function themeSwitch() {
  const select = document.querySelector(".theme select");
  select.value = root.dataset.theme || "auto";
  select.parentElement.hidden = false;
  select.addEventListener("change", () => {
    useTheme(select.value);
    try { localStorage.setItem(THEME, select.value); } catch { /* remembered nowhere, then */ }
  });
}

// --- tables --------------------------------------------------------------------------------------

const NUMBER = /^([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:\s*(?:±|to\b|%|→|of\b).*)?$/i;

function words(cell) {
  return cell ? cell.textContent.replace(/\s+/g, " ").trim() : "";
}

function asNumber(text) {
  const found = NUMBER.exec(text.replace(/−/g, "-"));
  return found ? Number(found[1].replace(/,/g, "")) : NaN;
}

// The cell in a column: the last one, where it spans the columns to the row's end.
function cellAt(row, column) {
  return row.cells[Math.min(column, row.cells.length - 1)];
}

function sortRows(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, text: words(cellAt(row, column)) }));
  const missing = (text) => text === "" || text === "—" || text === "–";
  const known = rows.filter((r) => !missing(r.text));
  const numeric = known.every((r) => !Number.isNaN(asNumber(r.text)));
  const compare = (a, b) => numeric
    ? asNumber(a.text) - asNumber(b.text)
    : a.text.localeCompare(b.text, "en", { numeric: true });
  known.sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));  // stable, missing ones last
  body.append(...known.map((r) => r.row), ...rows.filter((r) => missing(r.text)).map((r) => r.row));
}

function csv(table) {
  const width = table.tHead.rows[0].cells.length;
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const line = (row) => Array.from({ length: width }, (_, k) => quoted(words(cellAt(row, k)))).join(",");
  return [...table.rows].map((row) => line(row) + "\r\n").join("");
}

function tables() {
  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sortRows(table, column, ascending);
      });
    });
    const button = document.createElement("button");
    button.type = "button";
    button.className = "csv";
    button.textContent = "CSV";
    button.setAttribute("aria-label", `Download table ${table.dataset.name} as CSV`);
    button.addEventListener("click", () => {
      download(new Blob([csv(table)], { type: "text/csv" }), slug(table.dataset.name) + ".csv");
    });
    (table.closest(".scroll") || table).after(button);
  }
}

// --- files ---------------------------------------------------------------------------------------

function slug(text) {
  return text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 80);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- the command -----------------------------------------------------------------------------------

function copying() {
  for (const button of document.querySelectorAll(".command button")) {
    const text = button.parentElement.querySelector("pre");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        // Pages opened from a file may not use the clipboard interface: select and copy instead.
        getSelection().selectAllChildren(text);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  themeSwitch();
  tables();
  pictures();
  copying();
});
