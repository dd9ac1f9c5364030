// The charts: each is a list of lines, which are columns of the series or rates of them.
"use strict";

const MOST_POINTS = 8192;
const RATE_SECONDS = 2;  // A rate is that of at least so long: single samples are noise.
const HEIGHT = 180;
const TIERS = ["hot", "warm", "cold", "glacier"];
const CAUSES = ["capacity", "idle", "hit", "prefetch", "rule", "explicit", "restored"];
const DASHES = [[], [6, 4], [8, 3, 2, 3], [2, 3], [12, 4], [4, 2, 1, 2], [1, 2]];
const NO_LIMIT = 2 ** 62;

function size(bytes) {
  if (bytes === null || bytes === undefined) return "n/a";
  if (bytes >= NO_LIMIT) return "no limit";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let index = 0;
  while (bytes >= 999.5 && index < units.length - 1) { bytes /= 1000; index += 1; }
  return (index ? bytes.toFixed(bytes < 99.5 ? 1 : 0) : bytes.toFixed(0)) + " " + units[index];
}
const whole = (count) => (count === null || count === undefined ? "n/a" : Math.round(count).toLocaleString("en"));
const percent = (value) => (value === null || value === undefined ? "n/a" : value.toFixed(1) + " %");
function seconds(value) {
  if (value === null || value === undefined) return "n/a";
  if (value < 1e-3) return (value * 1e6).toFixed(0) + " µs";
  if (value < 1) return (value * 1e3).toFixed(1) + " ms";
  return value.toFixed(2) + " s";
}
const rate = (show) => (value) => (value === null || value === undefined ? "n/a" : show(value) + "/s");
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The points: columns of equal length by name, beginning with the series that were sampled so far.
const points = { at: [], columns: {} };

function addPoint(at, values) {
  const length = points.at.length;
  if (length && at <= points.at[length - 1]) return;
  points.at.push(at);
  for (const name of Object.keys(values))
    if (!(name in points.columns)) points.columns[name] = new Array(length).fill(null);
  for (const name of Object.keys(points.columns))
    points.columns[name].push(values[name] === undefined ? null : values[name]);
  if (length >= MOST_POINTS) for (const column of [points.at, ...Object.values(points.columns)])
    column.splice(0, column.length, ...column.filter((_, index) => index % 2));
}

function fillPoints(began, series) {
  const { timestamps, ...columns } = series;
  points.at = timestamps.map((at) => began + at);
  points.columns = columns;
}

function rates(column) {
  let start = 0;
  return column.map((value, index) => {
    while (start + 1 < index && points.at[index] - points.at[start + 1] >= RATE_SECONDS) start += 1;
    const before = column[start], over = points.at[index] - points.at[start];
    return value === null || before === null || over <= 0 ? null : Math.max(0, value - before) / over;
  });
}

const line = (name, label, ink, index, more) => ({ name, label, ink, dash: DASHES[index % DASHES.length], ...more });
const ofTiers = (ending, more) => TIERS.map((tier, index) => line(`${tier}_${ending}`, tier, `--${tier}`, index, more));
const latencies = (operation) => TIERS.flatMap((tier) => [
  line(`${tier}_${operation}_p50_seconds`, tier, `--${tier}`, 0, { withNext: true }),
  line(`${tier}_${operation}_p99_seconds`, `${tier}, p99`, `--${tier}`, 3, { width: 1.2, quiet: true })]);
const CHARTS = [
  { id: "reads", title: "Reads/s, by the tier that answered", show: rate(whole),
    lines: [...ofTiers("hits", { rate: true }), line("misses", "miss", "--ink", 4, { rate: true })] },
  { id: "rate", title: "Hit rate, % of the reads of two seconds", show: percent, top: 100.01, lines: [line("hit_rate", "hit rate", "--ink", 0, { points: true })] },
  { id: "held", title: "Bytes held", show: size, log: true, lines: ofTiers("used_bytes") },
  { id: "usage", title: "Usage, % of configured", show: percent, limited: true, lines: ofTiers("usage") },
  { id: "moved", title: "Moved, bytes/s, by cause", show: rate(size),
    lines: CAUSES.map((cause, index) => line(`moved_bytes_${cause}`, cause, `--c${1 + (index % 7)}`, index, { rate: true })) },
  { id: "bytes", title: "Stored and written, bytes/s", show: rate(size), lines: [
    line("stored_bytes", "stored", "--ink", 0, { rate: true }),
    line("cold_written_bytes", "written to cold", "--cold", 2, { rate: true }),
    line("glacier_written_bytes", "written to glacier", "--glacier", 3, { rate: true })] },
  { id: "memory", title: "RAM of the process", show: size, lines: [
    line("rss_bytes", "resident (RSS)", "--ink", 0), line("hot_used_bytes", "hot", "--hot", 0), line("warm_used_bytes", "warm", "--warm", 1)] },
  ...["retrieve", "store", "move", "write"].map((operation) => (
    { id: `latency-${operation}`, title: `Latency of ${operation}: median, dotted p99`, show: seconds, log: true, lines: latencies(operation) })),
];

// Lines of the grid at powers of ten alone.
function decades(axis) {
  const filter = (_, splits) => splits.map((value) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9 ? value : null));
  return { filter, grid: { ...axis.grid, filter }, ticks: { ...axis.ticks, filter } };
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.plot = null;
    this.drawn = "";
    const section = document.createElement("section"), title = document.createElement("h2");
    this.place = document.createElement("div");
    title.id = `${spec.id}-title`;
    title.textContent = spec.title;
    this.place.id = spec.id;
    this.place.setAttribute("role", "img");
    section.setAttribute("aria-labelledby", title.id);
    section.append(title, this.place);
    section.hidden = true;
    this.section = section;
    document.getElementById("charts").append(section);
  }

  // Lines without any value are left out: a tier that is off, a cause that has moved nothing.
  lines(tiers) {
    return this.spec.lines.filter((one) => {
      const column = points.columns[one.name];
      const tier = tiers[one.name.split("_")[0]];
      if (this.spec.limited && tier && tier.configured_bytes >= NO_LIMIT) return false;
      return column && column.some((value) => value);
    });
  }

  draw(tiers, range) {
    const lines = this.lines(tiers), names = lines.map((one) => one.name).join();
    this.section.hidden = lines.length === 0;
    if (lines.length === 0) return;
    if (names !== this.drawn) this.make(lines);
    this.drawn = names;
    const columns = lines.map((one) => (one.rate ? rates(points.columns[one.name]) : points.columns[one.name]));
    const last = points.at.length - 1;
    this.plot.setData([points.at, ...(this.spec.log ? columns.map((column) => column.map((value) => value || null)) : columns)], false);
    const latest = points.at[last];
    this.plot.setScale("x", { min: range ? Math.max(points.at[0], latest - range) : points.at[0], max: latest });
    if (this.plot.cursor.left < 0 || this.plot.cursor.left === undefined) this.plot.setLegend({ idx: last });
    this.place.setAttribute("aria-label", `${this.spec.title}; now ` + lines.map((one, index) => `${one.label} ${this.spec.show(columns[index][last])}`).join(", "));
  }

  make(lines) {
    if (this.plot) this.plot.destroy();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line"), size: 4 } };
    const { show, log, top } = this.spec;
    this.plot = new uPlot({
      width: this.place.clientWidth, height: HEIGHT, cursor: { y: false },
      scales: { y: log ? { distr: 3 } : { range: (_, __, most) => [0, top || (most > 0 ? most * 1.1 : 1)] } },
      axes: [{ ...axis, space: 80, size: 32, values: (_, at) => at.map(clock) },
        { ...axis, ...(log ? decades(axis) : {}), size: 66, space: 28, values: (_, all) => all.map((value) => (value === null ? "" : show(value))) }],
      series: [{ value: (_, at) => (at === null ? "" : clock(at)) },
        ...lines.map((one) => ({
          label: one.label, stroke: colour(one.ink), width: one.width || 2, dash: one.dash, spanGaps: false,
          points: { show: Boolean(one.points), size: 2.5 }, class: one.quiet ? "quiet" : "shown",
          value: (plot, value, series, index) => (one.withNext && index !== null
            ? `${show(value)}, p99 ${show(plot.data[series + 1][index])}` : show(value)),
        }))],
    }, [[], ...lines.map(() => [])], this.place);
  }

  resize() {
    if (this.plot) this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT });
  }
}

let charts = null;
function drawCharts(tiers, range) {
  if (points.at.length === 0) return;
  if (charts === null) {
    charts = CHARTS.map((spec) => new Chart(spec));
    addEventListener("resize", () => { for (const one of charts) one.resize(); });
  }
  for (const one of charts) one.draw(tiers, range);
}

// The rate of a counter over the latest two seconds, for the figures above the charts.
function rateNow(names) {
  const found = names.map((name) => points.columns[name]).filter(Boolean).map((column) => rates(column)[column.length - 1]);
  const known = found.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
}
