"use strict";

// Tables are sorted by the buttons in their heads: numbers from the largest, names from the first.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const numbers = head.classList.contains("number");
    const first = numbers ? "descending" : "ascending";
    const other = numbers ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
    const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const less = numbers ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
    const rows = [...body.rows].sort(less);
    body.append(...(order === "ascending" ? rows : rows.reverse()));
  }));
}

// The page of a run loads itself again while it is looked at and not paused. Browsers keep the place, this the folds.
const seconds = Number(document.body.dataset.reload ?? 0);
if (seconds > 0) {
  const key = (name) => `${location.pathname} ${name}`;
  const store = (name, value) => { try { sessionStorage.setItem(key(name), value); } catch { /* not allowed */ } };
  const stored = (name) => { try { return sessionStorage.getItem(key(name)); } catch { return null; } };
  const folds = [...document.querySelectorAll("details")];
  const button = document.querySelector(".controls button");
  const news = document.querySelector(".news");
  let paused = stored("paused") === "true";
  const show = () => {
    button.setAttribute("aria-pressed", String(paused));
    button.nextElementSibling.textContent = paused ? "paused" : `loads itself again every ${seconds} seconds`;
  };
  const silent = () => {
    const minutes = (Date.now() - Date.parse(document.querySelector("footer time").dateTime)) / 60000;
    if (minutes > 15) {
      news.textContent = `Nothing was written for ${Math.round(minutes)} minutes: the run may have been ended.`;
    }
  };
  const again = () => {
    silent();
    if (!paused && !document.hidden) {
      location.reload();
    }
  };
  folds.forEach((fold, number) => {
    fold.open = JSON.parse(stored("folds") ?? "[]")[number] ?? fold.open;
  });
  addEventListener("pagehide", () => store("folds", JSON.stringify(folds.map((fold) => fold.open))));
  button.addEventListener("click", () => { paused = !paused; store("paused", paused); show(); });
  button.hidden = false;
  show();
  silent();
  setInterval(again, 1000 * seconds);
}
