// Effects of all conditions: the arrays, what is asked of them, and their table.

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => escapes[sign]);
const number = (value, digits = 2) => (Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−"));

function rate(value) {
  if (value <= 1e-12) return "<1e−12";
  return value < 0.001 ? value.toExponential(0).replace("-", "−") : value.toFixed(3);
}

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The numbers that `packed` has written: planes of bytes of whole numbers, times a step.
async function unpacked({ data, bytes, step, delta }) {
  const planes = await inflated(data);
  const n = planes.length / bytes;
  const values = new Float32Array(n);
  const missing = bytes === 2 ? -(2 ** 15) : -(2 ** 31);
  let before = 0;
  for (let at = 0; at < n; at++) {
    let whole = 0;
    for (let plane = 0; plane < bytes; plane++) whole |= planes[plane * n + at] << (8 * plane);
    if (bytes === 2) whole = (whole << 16) >> 16;
    if (whole === missing) {
      values[at] = NaN;
    } else {
      before = delta ? before + whole : whole;
      values[at] = before * step;
    }
  }
  return values;
}

class Effects {
  static async of(stored) {
    const effects = new Effects();
    Object.assign(effects, stored);
    const names = ["start", "gene", "rank", "effect", "low", "high", "lfsr", "q", "target"];
    const arrays = await Promise.all(names.map((name) => unpacked(stored[name])));
    names.forEach((name, at) => { effects[name] = arrays[at]; });
    const n = effects.gene.length;
    effects.row = new Uint16Array(n);
    for (let row = 0; row < stored.perturbations.length; row++) {
      effects.row.fill(row, effects.start[row], effects.start[row + 1]);
    }
    for (let at = 0; at < n; at++) {
      effects.low[at] = effects.effect[at] - effects.low[at];
      effects.high[at] += effects.effect[at];
      effects.lfsr[at] = 10 ** -effects.lfsr[at];
      effects.q[at] = 10 ** -effects.q[at];
    }
    const places = (texts) => {
      const order = texts.map((_, at) => at).sort((a, b) => texts[a].localeCompare(texts[b], "en", { numeric: true }));
      const place = new Float32Array(texts.length);
      order.forEach((at, rank) => { place[at] = rank; });
      return place;
    };
    const perturbationPlace = places(stored.perturbations), genePlace = places(stored.genes);
    effects.keys = [
      (at) => perturbationPlace[effects.row[at]], (at) => genePlace[effects.gene[at]], (at) => effects.effect[at],
      (at) => effects.high[at] - effects.low[at], (at) => effects.lfsr[at], (at) => effects.q[at],
      (at) => effects.rank[at], (at) => effects.cells[effects.row[at]],
    ];
    return effects;
  }

  // Which names a search means: those that are written out, or else those that contain what is written.
  matches(names, text) {
    const terms = text.toLowerCase().split(/[,;]/).map((term) => term.trim()).filter(Boolean);
    if (!terms.length) return null;
    const mask = new Uint8Array(names.length);
    const lower = names.map((name) => name.toLowerCase());
    for (const term of terms) {
      const whole = lower.includes(term);
      lower.forEach((name, at) => { if (whole ? name === term : name.includes(term)) mask[at] = 1; });
    }
    return mask;
  }

  // Positions of the values that a filter lets through, in the order of a column.
  rows({ perturbation, gene, level, direction, best, targets }, column, descending) {
    const ofRow = this.matches(this.perturbations, perturbation), ofGene = this.matches(this.genes, gene);
    const kept = [];
    for (let at = 0; at < this.gene.length; at++) {
      if (ofRow && !ofRow[this.row[at]]) continue;
      if (ofGene && !ofGene[this.gene[at]]) continue;
      if (this.lfsr[at] > level || this.rank[at] > best || (targets && !this.target[at])) continue;
      if (direction * this.effect[at] < 0) continue;
      kept.push(at);
    }
    const key = this.keys[column], sign = descending ? -1 : 1;
    const sorted = Float64Array.from(kept, key), places = Uint32Array.from(kept.keys());
    const size = (at) => Math.abs(this.effect[at]);
    places.sort((a, b) => sign * (sorted[a] - sorted[b]) || size(kept[b]) - size(kept[a]) || a - b);
    return Uint32Array.from(places, (place) => kept[place]);
  }

  csv(rows) {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = ["perturbation,gene,effect,low,high,lfsr,q,rank,n_cells,is_target"];
    for (const at of rows) {
      const numbers = [this.effect[at], this.low[at], this.high[at]].map((value) => value.toFixed(3));
      lines.push([
        quoted(this.perturbations[this.row[at]]), quoted(this.genes[this.gene[at]]), ...numbers,
        this.lfsr[at].toPrecision(2), this.q[at].toPrecision(2), this.rank[at], this.cells[this.row[at]],
        this.target[at] ? "True" : "False",
      ].join(","));
    }
    return `${lines.join("\n")}\n`;
  }
}

function options(select, names, texts = names) {
  select.replaceChildren(...names.map((name, at) => new Option(texts[at], name)));
}

function showEffectTable(DataTable, effects, chooseRow, chooseGene) {
  const form = document.getElementById("effect-filter");
  const field = (name) => form.elements[name];
  let rows = [], asked = "";
  const answer = (request, callback) => {
    const filter = {
      perturbation: field("perturbation").value, gene: field("gene").value, level: Number(field("level").value),
      direction: Number(field("direction").value), best: Number(field("best").value), targets: field("targets").checked,
    };
    const [{ column, dir }] = request.order.length ? request.order : [{ column: 4, dir: "asc" }];
    const question = JSON.stringify([filter, column, dir]);
    if (question !== asked) {
      rows = effects.rows(filter, column, dir === "desc");
      asked = question;
    }
    const shown = Array.from(rows.slice(request.start, request.start + request.length));
    callback({
      draw: request.draw, recordsTotal: effects.gene.length, recordsFiltered: rows.length, data: shown.map((at) => [at]),
    });
  };
  const cell = (write, className = "") => ({ data: 0, render: (at) => write(at), className });
  const direction = (at) => (effects.lfsr[at] > 0.05 ? "" : effects.effect[at] > 0 ? "up" : "down");
  const interval = (at) => `${number(effects.low[at])} to ${number(effects.high[at])}`;
  const table = new DataTable("#effect-table", {
    serverSide: true, ajax: answer, searching: false, autoWidth: false, pageLength: 15, order: [[4, "asc"]],
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    language: {
      info: "Rows _START_ to _END_ of _TOTAL_", infoEmpty: "No rows", infoFiltered: "(of _MAX_ on this page)",
      emptyTable: "No effect passes all filters. Allow a larger lfsr, or choose “all” genes of each perturbation.",
      zeroRecords: "No effect passes all filters. Allow a larger lfsr, or choose “all” genes of each perturbation.",
    },
    columns: [
      cell((at) => `<button type="button" class="name" data-row="${effects.row[at]}">`
        + `${escaped(effects.perturbations[effects.row[at]])}</button>`),
      cell((at) => `<button type="button" class="name" data-gene="${effects.gene[at]}">`
        + `${escaped(effects.genes[effects.gene[at]])}</button>${effects.target[at] ? ' <span class="target">target</span>' : ""}`),
      cell((at) => `<span class="${direction(at)}">${number(effects.effect[at])}</span>`
        + `<small class="narrow">${interval(at)}</small>`, "number"),
      cell(interval, "number wide"), cell((at) => rate(effects.lfsr[at]), "number"),
      cell((at) => rate(effects.q[at]), "number wide"), cell((at) => effects.rank[at].toLocaleString("en"), "number wide"),
      cell((at) => effects.cells[effects.row[at]].toLocaleString("en"), "number wide"),
    ],
  });
  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => table.draw(), 150); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => table.draw()));
  document.getElementById("effect-csv").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([effects.csv(rows)], { type: "text/csv" }));
    link.download = "effects.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  document.getElementById("effect-table").addEventListener("click", ({ target }) => {
    const { row, gene } = target.dataset;
    if (row !== undefined) chooseRow(Number(row));
    if (gene !== undefined) chooseGene(Number(gene));
  });
  return table;
}
