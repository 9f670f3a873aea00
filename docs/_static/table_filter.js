// A field above the table that hides the rows without the words typed into it.
// On a narrow screen each row is a card whose cells are named by the header.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("article table");
  if (!table) return;
  const headers = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  const rows = [...table.querySelectorAll("tbody tr")];
  table.classList.add("filtered");
  // Cards are not laid out as a table, and stay one for a screen reader.
  table.setAttribute("role", "table");
  for (const row of rows) {
    row.setAttribute("role", "row");
    [...row.cells].forEach((cell, index) => {
      cell.setAttribute("role", "cell");
      cell.dataset.label = headers[index];
      // A name of code may be broken at its dots and underscores.
      cell.querySelectorAll("code .pre").forEach(breakable);
    });
  }
  (table.closest(".table-wrapper") || table).before(form(rows));
});

function breakable(code) {
  const parts = code.textContent.split(/(?<=_)|(?<=\.)(?!py$)/);
  code.replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
}

function form(rows) {
  const label = document.createElement("label");
  label.htmlFor = "table-filter";
  label.textContent = "Filter the methods";

  const field = document.createElement("input");
  field.type = "search";
  field.id = "table-filter";
  field.placeholder = "attention, Hinton, CIFAR-100";
  field.autocomplete = "off";

  const count = document.createElement("output");
  count.htmlFor = "table-filter";

  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = `${shown} of ${rows.length}`;
  };
  field.addEventListener("input", apply);
  apply();

  const group = document.createElement("div");
  group.className = "table-filter";
  group.setAttribute("role", "search");
  group.append(label, field, count);
  return group;
}
