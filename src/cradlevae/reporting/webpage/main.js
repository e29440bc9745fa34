// Puts the page to work: libraries, tables, plots, the enlarged figures, the list of sections, and paper.

const stored = (id) => document.getElementById(id)?.textContent;
const decoder = new TextDecoder();

async function library(id) {
  return decoder.decode(await inflated(stored(id)));
}

async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await library("plotly");
  document.head.append(script);
  return window.Plotly;
}

async function loadDataTable() {
  const address = URL.createObjectURL(new Blob([await library("datatables")], { type: "text/javascript" }));
  return (await import(address)).default;
}

function enlargeFigures() {
  const dialog = document.getElementById("enlarged");
  for (const button of document.querySelectorAll("figure button")) {
    button.addEventListener("click", () => {
      dialog.querySelector(".picture").replaceChildren(button.querySelector("img").cloneNode());
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
}

function markSection() {
  const links = new Map([...document.querySelectorAll("header ~ nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
    const [current] = [...links.keys()].filter((id) => seen.has(id));
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-15% 0px -60%" });
  for (const id of links.keys()) watcher.observe(document.getElementById(id));
}

function searchable(DataTable) {
  for (const table of document.querySelectorAll("table.searchable")) {
    const long = table.tBodies[0].rows.length > 15;
    new DataTable(table, {
      order: [], autoWidth: false, pageLength: 15, paging: long, info: long,
      layout: { topStart: "search", topEnd: null, bottomStart: "info", bottomEnd: long ? "paging" : null },
      language: { search: "Search", info: "Rows _START_ to _END_ of _TOTAL_", zeroRecords: "No row holds this text." },
    });
  }
}

function forPaper(redraw) {
  const plots = () => [...document.querySelectorAll(".plot")].filter((plot) => plot.layout);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    redraw();
    for (const plot of plots()) window.Plotly.relayout(plot, { width: 680, autosize: false });
  });
  window.addEventListener("afterprint", () => {
    redraw();
    for (const plot of plots()) window.Plotly.relayout(plot, { width: null, autosize: true });
  });
}

async function start() {
  enlargeFigures();
  markSection();
  const data = JSON.parse(stored("data"));
  const [Plotly, DataTable] = await Promise.all([loadPlotly(), loadDataTable()]);
  const drawings = [];
  const draw = (drawing) => { drawings.push(drawing); drawing(); };
  searchable(DataTable);

  if (data.effects) {
    const effects = await Effects.of(data.effects);
    const rowField = document.getElementById("volcano-perturbation"), geneField = document.getElementById("gene-name");
    let row = 0, gene = effects.gene[0];
    const volcano = () => drawVolcano(Plotly, effects, row, chooseGene);
    const profile = () => drawGene(Plotly, effects, gene, chooseRow);
    function chooseRow(chosen) {
      row = typeof chosen === "string" ? effects.perturbations.indexOf(chosen) : chosen;
      rowField.value = String(row);
      volcano();
    }
    function chooseGene(chosen) {
      gene = chosen;
      geneField.value = effects.genes[gene];
      profile();
    }
    const counts = new Uint32Array(effects.perturbations.length);
    for (let at = 0; at < effects.gene.length; at++) if (effects.lfsr[at] <= LEVEL) counts[effects.row[at]] += 1;
    row = counts.indexOf(Math.max(...counts));
    gene = effects.gene[effects.start[row]];
    options(rowField, [...effects.perturbations.keys()].map(String), effects.perturbations);
    rowField.value = String(row);
    rowField.addEventListener("change", () => chooseRow(Number(rowField.value)));
    document.getElementById("all-genes").append(...effects.genes.map((name) => new Option(name)));
    geneField.value = effects.genes[gene];
    geneField.addEventListener("change", () => {
      const lower = geneField.value.trim().toLowerCase();
      const found = effects.genes.findIndex((name) => name.toLowerCase() === lower);
      if (found < 0) say("gene-saying", `There is no gene ${geneField.value}.`);
      else chooseGene(found);
    });
    showEffectTable(DataTable, effects, chooseRow, chooseGene);
    draw(volcano);
    draw(profile);
    if (data.map) {
      const map = { ...data.map, values: await unpacked(data.map.values) };
      draw(() => drawMap(Plotly, map, chooseRow));
    }
  }

  if (data.cells) {
    const cells = { ...data.cells, layouts: {} };
    for (const name of ["failed", "perturbation", "damage"]) cells[name] = await unpacked(data.cells[name]);
    for (const [name, { axes, x, y }] of Object.entries(data.cells.layouts)) {
      cells.layouts[name] = { axes, x: await unpacked(x), y: await unpacked(y) };
    }
    const form = document.getElementById("cells-choice");
    const chosen = (name) => form.elements[name].value;
    options(form.elements.layout, Object.keys(cells.layouts));
    options(form.elements.colour, ["perturbation", "quality control", ...(cells.damages.length ? ["damage"] : [])]);
    const names = [...cells.perturbations].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    options(form.elements.only, ["", ...names], ["all perturbations", ...names]);
    const redraw = () => drawCells(Plotly, cells, {
      layout: chosen("layout"), colour: chosen("colour"), only: chosen("only"),
    });
    form.addEventListener("change", redraw);
    draw(redraw);
  }

  const redraw = () => drawings.forEach((drawing) => drawing());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 640px)").addEventListener("change", redraw);
  forPaper(redraw);
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  console.error(error);
  const notice = document.createElement("p");
  notice.className = "card";
  notice.textContent = `The interactive parts of this page could not be shown (${error.message}); texts and figures can.`;
  document.getElementById("content").prepend(notice);
});
