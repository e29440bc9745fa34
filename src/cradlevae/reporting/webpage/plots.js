// The interactive plots: a perturbation's genes, a gene's perturbations, the map of effects, and cells.

const LEVEL = 0.05;  // lfsr up to which an effect is coloured
const NAMED = 12;  // genes that are named in a plot
const PALETTE = [
  "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d", "#1b9e77", "#e7298a",
];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const narrow = () => window.innerWidth <= 640;

function layout(changes) {
  const axis = {
    gridcolor: colour("line"), zerolinecolor: colour("muted"), linecolor: colour("line"), automargin: true,
    title: { standoff: 8 },
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 12, t: 30, b: 46 },
    font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, showlegend: false, hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    ...changes, xaxis: { ...axis, ...changes.xaxis }, yaxis: { ...axis, ...changes.yaxis },
  };
}

const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: "hover",
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], toImageButtonOptions: { format: "svg" },
};

function say(id, text) {
  document.getElementById(id).textContent = text;
}

// Names in two columns beside the points, each with a line to its own, none over another.
function besides(members, x, y, far, top, label) {
  const made = [], gap = (narrow() ? 0.055 : 0.045) * top;
  for (const side of [-1, 1]) {
    let room = top;
    for (const at of members.filter((each) => x(each) * side > 0).sort((a, b) => y(b) - y(a) || Math.abs(x(b)) - Math.abs(x(a)))) {
      room = Math.min(y(at), room - gap);
      made.push({
        x: x(at), y: y(at), text: label(at), axref: "x", ayref: "y", ax: side * 1.15 * far, ay: room, arrowhead: 0,
        arrowwidth: 0.6, arrowcolor: colour("muted"), font: { size: 11, color: colour("ink") }, borderpad: 1,
        xanchor: side > 0 ? "left" : "right", yanchor: "middle", showarrow: true,
      });
    }
  }
  return made;
}

function drawVolcano(Plotly, effects, row, chooseGene) {
  const [first, last] = [effects.start[row], effects.start[row + 1]];
  const name = effects.perturbations[row];
  const groups = { rest: [], up: [], down: [] };
  for (let at = first; at < last; at++) {
    groups[effects.lfsr[at] > LEVEL ? "rest" : effects.effect[at] > 0 ? "up" : "down"].push(at);
  }
  const height = (at) => -Math.log10(effects.lfsr[at]);
  const label = (at) => escaped(effects.genes[effects.gene[at]]);
  const labels = { rest: "not called", up: "up", down: "down" };
  const traces = Object.entries(groups).map(([group, members]) => ({
    type: "scatter", mode: "markers", name: labels[group], x: members.map((at) => effects.effect[at]), y: members.map(height),
    text: members.map((at) => `<b>${label(at)}</b><br>effect ${number(effects.effect[at])} `
      + `(${number(effects.low[at])} to ${number(effects.high[at])})<br>lfsr ${rate(effects.lfsr[at])}`),
    hoverinfo: "text", customdata: members.map((at) => effects.gene[at]),
    marker: { color: colour(group), size: group === "rest" ? 5 : 7, opacity: group === "rest" ? 0.5 : 0.85 },
  }));
  const called = [...groups.up, ...groups.down].sort((a, b) => a - b);
  let far = 0, top = -Math.log10(LEVEL);
  for (let at = first; at < last; at++) {
    far = Math.max(far, Math.abs(effects.effect[at]));
    top = Math.max(top, height(at));
  }
  far = far || 1;
  const annotations = besides(called.slice(0, narrow() ? 8 : NAMED), (at) => effects.effect[at], height, far, top * 1.06, label);
  const plot = document.getElementById("plot-volcano");
  Plotly.newPlot(plot, traces, layout({
    annotations,
    xaxis: { title: { text: "effect (log2)" }, range: [-1.75 * far, 1.75 * far] },
    yaxis: { title: { text: "−log10 lfsr" }, range: [0, top * 1.06] },
    shapes: [{
      type: "line", xref: "paper", x0: 0, x1: 1, y0: -Math.log10(LEVEL), y1: -Math.log10(LEVEL),
      line: { color: colour("muted"), width: 1, dash: "dot" },
    }],
  }), CONFIG);
  plot.on("plotly_click", ({ points }) => chooseGene(points[0].customdata));
  const strongest = called.slice(0, 5).map((at) => `${effects.genes[effects.gene[at]]} (${number(effects.effect[at])})`);
  const cells = effects.cells[row] ? `${effects.cells[row].toLocaleString("en")} passing training cells` : "unseen in training";
  say("volcano-saying", `${name}, ${cells}: ${groups.up.length} genes up and ${groups.down.length} down at lfsr ≤ ${LEVEL}.`
    + (strongest.length ? ` First in rank: ${strongest.join(", ")}.` : "")
    + (effects.complete ? "" : " Genes of low rank are left out of this page."));
}

function drawGene(Plotly, effects, gene, chooseRow) {
  const found = [];
  for (let at = 0; at < effects.gene.length; at++) if (effects.gene[at] === gene) found.push(at);
  const size = (at) => Math.abs(effects.effect[at]);
  const called = found.filter((at) => effects.lfsr[at] <= LEVEL);
  const most = narrow() ? 18 : 24;
  const shown = found.sort((a, b) => effects.lfsr[a] - effects.lfsr[b] || size(b) - size(a)).slice(0, most);
  shown.sort((a, b) => effects.effect[a] - effects.effect[b]);
  const hue = (at) => colour(effects.lfsr[at] > LEVEL ? "rest" : effects.effect[at] > 0 ? "up" : "down");
  const plot = document.getElementById("plot-gene");
  Plotly.newPlot(plot, [{
    type: "scatter", mode: "markers", x: shown.map((at) => effects.effect[at]), y: shown.map((_, place) => place),
    error_x: {
      type: "data", symmetric: false, array: shown.map((at) => effects.high[at] - effects.effect[at]),
      arrayminus: shown.map((at) => effects.effect[at] - effects.low[at]), color: colour("muted"), thickness: 1, width: 0,
    },
    marker: { color: shown.map(hue), size: 8 }, customdata: shown.map((at) => effects.row[at]), hoverinfo: "text",
    text: shown.map((at) => `<b>${escaped(effects.perturbations[effects.row[at]])}</b><br>effect ${number(effects.effect[at])} `
      + `(${number(effects.low[at])} to ${number(effects.high[at])})<br>lfsr ${rate(effects.lfsr[at])}, rank ${effects.rank[at]}`),
  }], layout({
    xaxis: { title: { text: `effect on ${escaped(effects.genes[gene])} (log2)` }, zeroline: true },
    yaxis: {
      tickvals: shown.map((_, place) => place), showgrid: false, zeroline: false, range: [-0.7, shown.length - 0.3],
      ticktext: shown.map((at) => shortened(effects.perturbations[effects.row[at]])),
    },
  }), CONFIG);
  plot.on("plotly_click", ({ points }) => chooseRow(points[0].customdata));
  say("gene-saying", `${effects.genes[gene]}: ${called.length} perturbations change it at lfsr ≤ ${LEVEL}; shown: `
    + `${shown.length} of ${effects.perturbations.length}, those of smallest lfsr, with `
    + `${Math.round(100 * effects.credible)} % intervals.`);
}

const shortened = (text, most = 18) => escaped(text.length > most ? `${text.slice(0, most - 1)}…` : text);

function drawMap(Plotly, map, chooseRow) {
  const n = map.columns.length;
  const z = map.rows.map((_, row) => Array.from(map.values.slice(row * n, (row + 1) * n)));
  const sizes = Float32Array.from(map.values, Math.abs).sort();
  const limit = sizes[Math.floor(0.98 * (sizes.length - 1))] || 1;
  const most = (length, room) => (length <= room ? 1 : Math.ceil(length / room));
  const ticks = (names, room) => {
    const kept = [...names.keys()].filter((at) => at % most(names.length, room) === 0);
    return { tickvals: kept, ticktext: kept.map((at) => shortened(names[at], narrow() ? 12 : 18)) };
  };
  const plot = document.getElementById("plot-map");
  const hover = map.rows.map((row, r) => map.columns.map((column, c) => (
    `<b>${escaped(column)}</b> under <b>${escaped(row)}</b>: ${number(z[r][c])}`)));
  Plotly.newPlot(plot, [{
    type: "heatmap", z, text: hover, hoverinfo: "text", zmin: -limit, zmax: limit, xgap: 0.5, ygap: 0.5,
    colorscale: [[0, colour("down")], [0.5, colour("card")], [1, colour("up")]],
    colorbar: narrow()
      ? { orientation: "h", y: 1.01, yanchor: "bottom", x: 0, xanchor: "left", thickness: 8, len: 0.55, outlinewidth: 0 }
      : { title: { text: "log2", side: "top" }, thickness: 10, len: 0.5, outlinewidth: 0 },
  }], layout({
    xaxis: { ...ticks(map.columns, narrow() ? 16 : 80), tickangle: -90, showgrid: false, tickfont: { size: 10 } },
    yaxis: { ...ticks(map.rows, 60), showgrid: false, tickfont: { size: 10 } },
  }), CONFIG);
  plot.on("plotly_click", ({ points }) => chooseRow(map.rows[points[0].pointIndex[0]]));
}

function drawCells(Plotly, cells, chosen) {
  const { x, y, axes } = cells.layouts[chosen.layout];
  const n = cells.failed.length;
  const failed = [...cells.failed.keys()].filter((at) => cells.failed[at]);
  const passing = [...cells.failed.keys()].filter((at) => !cells.failed[at]);
  const twin = new Map(failed.map((at, place) => [at, n + place]));
  const nameOf = (at) => cells.perturbations[cells.perturbation[at]];
  const often = new Map();
  for (let at = 0; at < n; at++) if (nameOf(at) !== cells.control) often.set(nameOf(at), (often.get(nameOf(at)) || 0) + 1);
  const largest = [...often.keys()].sort((a, b) => often.get(b) - often.get(a)).slice(0, PALETTE.length - 1);
  const groupOf = {
    "quality control": (at) => (cells.failed[at] ? "failed" : "passing"),
    damage: (at) => (cells.failed[at] ? cells.damages[cells.damage[at]] : "passing"),
    perturbation: (at) => (nameOf(at) === cells.control ? "control" : largest.includes(nameOf(at)) ? nameOf(at) : "others"),
  }[chosen.colour];
  const groups = [...new Set([...passing, ...failed].map(groupOf))];
  const background = new Set(["passing", "others"]);
  groups.sort((a, b) => background.has(b) - background.has(a) || a.localeCompare(b));
  const hues = new Map();
  let next = 0;
  for (const group of groups) {
    const plain = background.has(group) ? colour("rest") : group === "control" ? colour("ink") : null;
    hues.set(group, plain ?? (group === "failed" ? colour("up") : PALETTE[next++ % PALETTE.length]));
  }
  const traces = [];
  const panel = (number, place, members) => {
    for (const group of groups) {
      const of = members.filter((at) => groupOf(at) === group && (!chosen.only || nameOf(at) === chosen.only));
      if (!of.length && number === 2) continue;
      const faint = background.has(group) || (chosen.colour !== "perturbation" && group === "passing");
      traces.push({
        type: "scatter", mode: "markers", name: escaped(group), legendgroup: group, showlegend: number === 1,
        xaxis: `x${number === 1 ? "" : 2}`, yaxis: `y${number === 1 ? "" : 2}`,
        x: of.map((at) => x[place(at)]), y: of.map((at) => y[place(at)]), hoverinfo: "text",
        marker: {
          color: hues.get(group), size: faint ? 4 : 5, opacity: faint ? 0.45 : 0.8,
          symbol: of.map((at) => (cells.failed[at] ? "circle" : "circle-open")), line: { width: 1 },
        },
        text: of.map((at) => `<b>${escaped(nameOf(at))}</b><br>${cells.failed[at] ? "failed" : "passed"}`
          + (cells.failed[at] && cells.damages.length ? `: ${escaped(cells.damages[cells.damage[at]])}` : "")),
      });
    }
  };
  const everyone = [...passing, ...failed];
  panel(1, (at) => at, everyone);
  panel(2, (at) => twin.get(at) ?? at, everyone);
  const quiet = { showgrid: false, zeroline: false, showticklabels: false, ticks: "" };
  const heading = (text, xref, yref) => ({
    text, xref: `${xref} domain`, yref: `${yref} domain`, x: 0, y: 1.01, xanchor: "left", yanchor: "bottom",
    showarrow: false, font: { size: 13, color: colour("ink") },
  });
  const look = layout({
    grid: { rows: narrow() ? 2 : 1, columns: narrow() ? 1 : 2, pattern: "independent", xgap: 0.06, ygap: 0.16 },
    showlegend: true, legend: { orientation: "h", y: narrow() ? -0.06 : -0.11, yanchor: "top", x: 0, itemsizing: "constant" },
    margin: { l: 40, r: 12, t: 34, b: 60 },
    annotations: [heading("As measured", "x", "y"), heading("Failed cells replaced by their twins", "x2", "y2")],
    xaxis: { ...quiet, title: { text: axes[0] } }, yaxis: { ...quiet, title: { text: axes[1] } },
  });
  look.xaxis2 = { ...look.xaxis, matches: "x" };
  if (narrow()) look.xaxis.title = { text: "" };
  look.yaxis2 = { ...look.yaxis, matches: "y", title: { text: narrow() ? axes[1] : "" } };
  Plotly.newPlot("plot-cells", traces, look, CONFIG);
  const picked = chosen.only ? failed.filter((at) => nameOf(at) === chosen.only).length : failed.length;
  say("cells-saying", `${picked.toLocaleString("en")} failed cells`
    + `${chosen.only ? ` with ${chosen.only}` : ""} (filled), the others passed (open).`);
}
