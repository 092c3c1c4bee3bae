"use strict";
// Without this script the page is whole, but its tables keep still.

function value(row, column) {
  return row.cells[column].dataset.value ?? row.cells[column].textContent;
}

function sort(table, header) {
  const column = header.cellIndex;
  const numeric = header.classList.contains("number");
  const rows = [...table.tBodies[0].rows];
  // Numbers begin with the largest, names with the first.
  const descending = header.ariaSort ? header.ariaSort === "ascending" : numeric;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    // What has no number stands last either way.
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
  });
  table.tBodies[0].append(...rows);
}

function filter(section) {
  const words = section.querySelector(".method-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const group = section.querySelector(".group-filter")?.value ?? "all";
  const ticked = new Set([...section.querySelectorAll(".column-filter:checked")].map((box) => box.value));
  const table = section.querySelector(".summary");
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const method = value(row, 0).toLowerCase();
    row.hidden = !words.every((word) => method.includes(word));
  }
  const ofGroup = (element) => ["", group].includes(element.dataset.group);
  for (const cell of table.querySelectorAll("[data-column]")) {
    cell.hidden = !ofGroup(cell) || !ticked.has(cell.dataset.column);
  }
  for (const label of section.querySelectorAll("fieldset label")) label.hidden = !ofGroup(label);
  const shown = rows.filter((row) => !row.hidden).length;
  section.querySelector(".shown").value = shown < rows.length ? `${shown} of ${rows.length} methods` : "";
}

function copyWithoutClipboard(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copy(button) {
  const text = button.previousElementSibling.textContent;
  let done;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // Pages opened from a disk have no clipboard in some browsers.
    done = copyWithoutClipboard(text);
  }
  button.textContent = done ? "copied" : "select it";
  setTimeout(() => { button.textContent = "copy"; }, 2000);
}

for (const section of document.querySelectorAll("section")) {
  const table = section.querySelector(".summary");
  if (!table) continue;
  for (const header of table.tHead.rows[0].cells) header.addEventListener("click", () => sort(table, header));
  const controls = section.querySelector(".controls");
  controls.hidden = false;
  controls.addEventListener("input", () => filter(section));
  controls.addEventListener("submit", (event) => event.preventDefault());
  // A browser that goes back keeps what was typed.
  filter(section);
}
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
