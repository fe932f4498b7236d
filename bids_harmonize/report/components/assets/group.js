(() => {
  const table = document.getElementById("scans"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], controls = document.getElementById("controls");
  const [find, site, kind, shown] = ["find", "site", "kind", "shown"].map(id => document.getElementById(id));
  const filter = () => {
    const text = find.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !(row.textContent.toLowerCase().includes(text)
      && (!site.value || row.dataset.site === site.value)
      && (!kind.value || row.dataset.kinds.split(" ").includes(kind.value)));
    shown.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
  };
  const sort = (head, column) => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const text = row => row.cells[column].textContent.trim();
    const missing = value => value === "" || value === "–";
    const compare = (a, b) => missing(a) || missing(b) ? missing(a) - missing(b)
      : sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b);
    body.append(...rows.sort((a, b) => compare(text(a), text(b))));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head, column));
    head.replaceChildren(button);
  });
  controls.addEventListener("input", filter);
  controls.hidden = false;
  filter();
})();
