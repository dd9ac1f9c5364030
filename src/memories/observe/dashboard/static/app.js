// Draws what the server sends, and nothing else: no state that a reload would lose matters.
"use strict";

const POINTS = 600;
const TIERS = ["hot", "warm", "cold", "glacier"];
const DASHES = { hot: [], warm: [6, 4], cold: [8, 3, 2, 3], glacier: [2, 3] };
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
const query = (extra) => {
  const words = new URLSearchParams(extra);
  if (token) words.set("token", token);
  return words.toString() ? "?" + words : "";
};

const NO_LIMIT = 2 ** 62;
function size(bytes) {
  if (bytes >= NO_LIMIT) return "no limit";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let index = 0;
  while (bytes >= 999.5 && index < units.length - 1) { bytes /= 1000; index += 1; }
  return (index ? bytes.toFixed(1) : bytes.toFixed(0)) + " " + units[index];
}
const whole = (count) => Math.round(count).toLocaleString("en");
function seconds(value) {
  if (value === null) return "n/a";
  if (value < 1e-3) return (value * 1e6).toFixed(0) + " µs";
  if (value < 1) return (value * 1e3).toFixed(1) + " ms";
  return value.toFixed(2) + " s";
}
const percent = (value) => (value === null ? "n/a" : value.toFixed(1) + " %");

// Everything from the store is text, never markup.
function cell(content, kind) {
  const made = document.createElement("td");
  if (kind) made.className = kind;
  if (content instanceof Node) made.append(content); else made.textContent = content;
  return made;
}
function rows(id, items, cells) {
  const body = $(id);
  const held = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  body.replaceChildren(...items.map((item) => {
    const row = document.createElement("tr");
    row.append(...cells(item));
    return row;
  }));
  // A row that has the focus is drawn anew: the focus must stay on its key.
  if (held !== null) for (const one of body.querySelectorAll("button"))
    if (one.dataset.key === held) one.focus();
}
function keyButton(key) {
  const made = document.createElement("button");
  made.type = "button"; made.className = "link"; made.textContent = key; made.dataset.key = key;
  made.title = key;
  made.addEventListener("click", () => { $("key").value = key; explain(key); });
  return made;
}
function bar(name, value) {
  const made = document.createElement("span");
  const track = document.createElement("span"), fill = document.createElement("span");
  track.className = "bar";
  fill.style.width = Math.min(100, value) + "%";
  fill.style.background = `var(--${name})`;
  track.append(fill);
  made.append(track, percent(value));
  return made;
}

function drawTables(now) {
  rows("tier-rows", TIERS.filter((name) => now.tiers[name]), (name) => {
    const tier = now.tiers[name];
    return [cell(name), cell(bar(name, tier.usage_percent)), cell(size(tier.used_bytes), "n"),
      cell(size(tier.configured_bytes), "n"), cell(whole(tier.keys), "n"), cell(whole(tier.hits), "n"),
      cell(tier.medium)];
  });
  const prefetch = now.prefetch ? Object.entries(now.prefetch).map(([name, count]) => `${whole(count)} ${name}`).join(", ") : "none";
  const facts = [["Hit rate, all in all", percent(now.hit_rate_percent)], ["Reads", whole(now.reads)],
    ["Misses", whole(now.misses)], ["Stored", `${whole(now.stored)} (${size(now.stored_bytes)})`],
    ["Prefetch", prefetch], ["Failures", whole(now.failures)]];
  for (const [name, written] of Object.entries(now.written))
    if (written.compression !== null) facts.push([`Compression, ${name}`, written.compression.toFixed(1) + " ×"]);
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const group = document.createElement("div"), term = document.createElement("dt"), fact = document.createElement("dd");
    term.textContent = name; fact.textContent = value; group.append(term, fact);
    return group;
  }));
  rows("hot-rows", now.hot_keys.slice(0, 20), (one) => [cell(keyButton(one.key), "key"), cell(one.tier),
    cell(size(one.size), "n"), cell(whole(one.hits), "n"), cell(one.rate.toFixed(1), "n")]);
  rows("move-rows", now.latest_moves.slice(-20).reverse(), (one) => [
    cell(new Date(one.at * 1000).toLocaleTimeString("en-GB")), cell(keyButton(one.key), "key"),
    cell(`${one.source} → ${one.target}`), cell(one.cause), cell(size(one.size), "n")]);
  rows("latency-rows", now.latencies, (one) => [cell(one.operation), cell(one.tier), cell(whole(one.count), "n"),
    cell(seconds(one.p50), "n"), cell(seconds(one.p90), "n"), cell(seconds(one.p99), "n")]);
  $("nodes").hidden = !now.nodes;
  if (now.nodes) rows("node-rows", Object.entries(now.nodes), ([name, state]) => [
    cell(name), cell(state.online ? (state.up_to_date ? "online" : "catching up") : "offline"),
    cell(whole(state.keys), "n"), cell(percent(state.memory_usage), "n"),
    cell(seconds(state.latency_seconds), "n"), cell(state.last_error || "")]);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function chart(id, names) {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line") } };
  return new uPlot({
    width: $(id).clientWidth, height: 190, cursor: { y: false }, legend: { live: false },
    scales: { y: { range: (_, __, top) => [0, Math.max(1, names.length > 1 ? top * 1.1 : 100)] } },
    axes: [axis, { ...axis, size: 45 }],
    series: [{ value: (_, at) => (at === null ? "" : new Date(at * 1000).toLocaleTimeString("en-GB")) },
      ...names.map((name) => ({
        label: name, stroke: colour(`--${name === "hit rate" ? "ink" : name}`), width: 2, dash: DASHES[name] || [],
        spanGaps: false, points: { show: names.length === 1, size: 4 }, value: (_, at) => percent(at),
      }))],
  }, [[], ...names.map(() => [])], $(id));
}
const history = { times: [], usage: [], rate: [] };
let charts = null, before = null, paused = false;
function drawCharts(now) {
  const names = TIERS.filter((name) => now.tiers[name] && now.tiers[name].configured_bytes < NO_LIMIT);
  if (charts === null) {
    history.usage = names.map(() => []);
    charts = { names, usage: chart("usage", names), rate: chart("rate", ["hit rate"]) };
    addEventListener("resize", () => {
      for (const id of ["usage", "rate"]) charts[id].setSize({ width: $(id).clientWidth, height: 190 });
    });
  }
  const hits = ["hot", "warm"].reduce((sum, name) => sum + (now.tiers[name] ? now.tiers[name].hits : 0), 0);
  const reads = before === null ? 0 : now.reads - before.reads;
  history.times.push(now.at);
  charts.names.forEach((name, index) => history.usage[index].push(now.tiers[name] ? now.tiers[name].usage_percent : null));
  history.rate.push(reads > 0 ? 100 * (hits - before.hits) / reads : null);
  before = { hits, reads: now.reads };
  for (const column of [history.times, history.rate, ...history.usage]) if (column.length > POINTS) column.shift();
  charts.usage.setData([history.times, ...history.usage]);
  charts.rate.setData([history.times, history.rate]);
  $("usage").setAttribute("aria-label", "Usage over time; now " + charts.names.map((name) => `${name} ${percent(now.tiers[name].usage_percent)}`).join(", "));
  $("rate").setAttribute("aria-label", "Hit rate over time; all in all " + percent(now.hit_rate_percent));
}

let mayAct = false;
let said = "";
function say(text) { if (text !== said) { said = text; $("state").textContent = text; } }
function show(now) {
  if (now.error) return say(now.error);
  say(`${now.state}, pid ${now.pid} on ${now.host}`);
  mayAct = now.may_act && token !== "";
  if (paused) return;
  drawTables(now);
  drawCharts(now);
}
const events = new EventSource("events" + query({ interval: new URLSearchParams(location.search).get("interval") || "0.5" }));
events.onmessage = (event) => show(JSON.parse(event.data));
events.addEventListener("closed", () => { events.close(); say("closed: the manager has ended"); });
events.onerror = () => { if (events.readyState !== EventSource.CLOSED) say("not connected, trying again"); };

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
});
async function explain(key) {
  const answer = await fetch("explain" + query({ key }));
  const found = await answer.json();
  $("explanation").textContent = found.text || found.error;
  $("actions").hidden = !(answer.ok && mayAct);
}
$("explain").addEventListener("submit", (event) => { event.preventDefault(); explain($("key").value); });
$("actions").addEventListener("click", async (event) => {
  const action = event.target.dataset.action;
  if (!action) return;
  const key = $("key").value;
  const answer = await fetch("act", {
    method: "POST", headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
    body: JSON.stringify({ action, key }),
  });
  if (answer.ok) explain(key); else $("explanation").textContent = (await answer.json()).error;
});
