"use strict";
// Sorting by a column's button, and filtering rows and points by text and by contender. Without it the page still reads.

const key = cell => cell.dataset.v !== undefined ? Number(cell.dataset.v)
  : cell.textContent === "–" || cell.textContent === "" ? null
  : cell.classList.contains("n") ? Number.parseFloat(cell.textContent.replace("~", "")) : cell.textContent;

function compare(a, b) {
  if (a === null || b === null || Number.isNaN(a) || Number.isNaN(b)) return 0;
  return typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(button) {
  const head = button.closest("th"), body = button.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map(row => [key(row.cells[head.cellIndex]), row]);
  const known = rows.filter(([value]) => value !== null && !Number.isNaN(value));
  known.sort(([a], [b]) => down ? compare(b, a) : compare(a, b));
  const unknown = rows.filter(([value]) => value === null || Number.isNaN(value)); // last, either way
  body.append(...[...known, ...unknown].map(([, row]) => row));
}

for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => sort(button));

const find = document.getElementById("find"), boxes = [...document.querySelectorAll(".filters input[type=checkbox]")];
const rows = [...document.querySelectorAll("tbody tr")];
const points = [...document.querySelectorAll("svg [data-contender]")];
// what a row or a point says, lower case, read once
const says = new Map([...rows, ...points].map(element => [element, element.textContent.toLowerCase()]));

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const hidden = new Set(boxes.filter(box => !box.checked).map(box => box.value));
  const shows = element => !hidden.has(element.dataset.contender) && words.every(word => says.get(element).includes(word));
  let count = 0;
  for (const row of rows) {
    row.hidden = !shows(row);
    count += !row.hidden;
  }
  for (const point of points) // a line between points says nothing of its own: the contender alone decides
    point.style.display = (says.get(point) ? shows(point) : !hidden.has(point.dataset.contender)) ? "" : "none";
  document.getElementById("status").textContent = count < rows.length ? `${count} of ${rows.length} rows` : "";
}

find.addEventListener("input", filter);
find.form.addEventListener("submit", event => event.preventDefault());
for (const box of boxes) box.addEventListener("change", filter);
for (const [id, checked] of [["all", true], ["none", false]])
  document.getElementById(id).addEventListener("click", () => {
    for (const box of boxes) box.checked = checked;
    filter();
  });
filter(); // a browser may have kept what was typed before a reload
